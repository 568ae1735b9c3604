//! Statements: how values, facts and checks flow.

use std::collections::BTreeSet;

use tree_sitter::Node;

use super::buffer::length_symbol;
use super::linear::{Facts, Linear};
use super::value::{State, Value};
use super::{Walk, Walker, children};
use crate::code::taint::Dangers;

/// A loop is walked at most once more than this.
const ROUNDS: usize = 4;
/// Variables of a loop that are compared with each other.
const COUNTERS: usize = 6;

impl<'t> Walker<'t> {
    pub(super) fn block(&mut self, block: Node<'t>, state: &mut State) -> Walk {
        for statement in children(block) {
            // What stands after a label can be jumped to.
            if state.dead && statement.kind() != "labeled_statement" {
                continue;
            }
            self.statement(statement, state)?;
        }
        Ok(())
    }

    pub(super) fn statement(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        self.budget.enter()?;
        self.budget.charge(state.vars.len() + state.buffers.len() + state.facts.len());
        match node.kind() {
            "compound_statement"
            | "else_clause"
            | "translation_unit"
            | "linkage_specification"
            | "declaration_list"
            | "preproc_if"
            | "preproc_ifdef"
            | "preproc_else" => self.block(node, state)?,
            "declaration" => self.declaration(node, state)?,
            "expression_statement" => {
                if let Some(expression) = node.named_child(0) {
                    self.eval(expression, state)?;
                    if self.field_text(expression, "function") == "assert" {
                        let test =
                            expression.child_by_field_name("arguments").and_then(|list| list.named_child(0));
                        test.map_or(Ok(()), |test| self.refine(test, true, state))?;
                    }
                    if self.never_returns(expression) {
                        state.dead = true;
                    }
                }
            }
            "return_statement" => {
                let expression = node.named_child(0);
                let value = expression.map(|it| self.eval(it, state)).transpose()?.unwrap_or_default();
                self.used(&value, node, state);
                if let Some(frame) = self.frames.last_mut() {
                    frame.returns.push((state.clone(), expression, value));
                }
                state.dead = true;
            }
            "if_statement" => self.if_statement(node, state)?,
            "while_statement" | "for_statement" | "do_statement" => self.repeat(node, state)?,
            "switch_statement" => self.switch(node, state)?,
            "break_statement" => self.jump(state, |frame| &mut frame.breaks),
            "continue_statement" => self.jump(state, |frame| &mut frame.continues),
            "goto_statement" => state.dead = true,
            "labeled_statement" => {
                state.dead = false;
                for child in children(node).skip(1) {
                    self.statement(child, state)?;
                }
            }
            _ => {}
        }
        self.budget.leave();
        Ok(())
    }

    fn jump(
        &mut self,
        state: &mut State,
        to: impl for<'a> FnOnce(&'a mut super::Frame<'t>) -> &'a mut Vec<State>,
    ) {
        if let Some(frame) = self.frames.last_mut() {
            to(frame).push(state.clone());
        }
        state.dead = true;
    }

    fn never_returns(&self, node: Node<'t>) -> bool {
        let name = self.field_text(node, "function");
        matches!(
            name,
            "exit"
                | "_exit"
                | "_Exit"
                | "abort"
                | "err"
                | "errx"
                | "die"
                | "usage"
                | "fatal"
                | "longjmp"
                | "pthread_exit"
                | "quick_exit"
                | "panic"
                | "error_exit"
        )
    }

    fn if_statement(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        let Some(test) = node.child_by_field_name("condition") else { return Ok(()) };
        self.eval(test, state)?;
        let (mut then, mut other) = (state.clone(), state.clone());
        self.refine(test, true, &mut then)?;
        self.refine(test, false, &mut other)?;
        if let Some(block) = node.child_by_field_name("consequence") {
            self.statement(block, &mut then)?;
        }
        if let Some(block) = node.child_by_field_name("alternative") {
            self.statement(block, &mut other)?;
        }
        *state = then.join(other);
        Ok(())
    }

    /// A loop. After it either its test failed or a `break` was reached.
    fn repeat(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        if let Some(initial) = node.child_by_field_name("initializer") {
            if initial.kind() == "declaration" {
                self.declaration(initial, state)?;
            } else {
                drop(self.eval(initial, state)?);
            }
        }
        let outer = self
            .frames
            .last_mut()
            .map(|frame| (std::mem::take(&mut frame.breaks), std::mem::take(&mut frame.continues)));
        let before = state.clone();
        let (last, breaks) = self.rounds(node, &before)?;
        if let (Some(frame), Some((outer_breaks, outer_continues))) = (self.frames.last_mut(), outer) {
            frame.breaks = outer_breaks;
            frame.continues = outer_continues;
        }
        let test = node.child_by_field_name("condition");
        let forever =
            test.is_none_or(|test| matches!(self.text(test).trim_matches(['(', ')']), "1" | "true"));
        let mut after = State::dead();
        if !forever {
            // Without an element there is nothing that a check could have missed.
            let (cleared, refused) = if last.dead {
                (before.cleared.clone(), before.refused.clone())
            } else {
                (last.cleared.clone(), last.refused.clone())
            };
            after = if node.kind() == "do_statement" { last } else { last.join(before) };
            after.cleared = cleared;
            after.refused = refused;
            if let Some(test) = test {
                self.refine(test, false, &mut after)?;
            }
        }
        *state = breaks.into_iter().fold(after, State::join);
        Ok(())
    }

    /// Walks a loop until what is known where an iteration begins is known again where it ends. The first time that is
    /// what was known before the loop; what an iteration does not keep is dropped, and so is what was found on the way.
    /// Returns the end of the last iteration, and the ways out of it.
    fn rounds(&mut self, node: Node<'t>, before: &State) -> Walk<(State, Vec<State>)> {
        let mut changed = BTreeSet::new();
        self.changed(node, &mut changed);
        let known = self.with_differences(before, &changed);
        let mut start = State { facts: known.clone(), ..self.unknown(before, &changed) };
        let mut round = 0;
        loop {
            let outer = std::mem::take(&mut self.report);
            let mut end = start.clone();
            self.round(node, &mut end)?;
            let breaks = self.take_jumps();
            let found = std::mem::replace(&mut self.report, outer);
            // What an iteration leaves in variables reaches the next one in the second round.
            let settled = round > 0 && end.facts.imply(&start.facts);
            if end.dead || settled || round == ROUNDS {
                self.report.add(found);
                return Ok((end, breaks));
            }
            let facts = match round {
                0 => known.meet(&end.facts),
                _ if round + 1 == ROUNDS => self.unknown(before, &changed).facts.kept_by(&end.facts),
                _ => start.facts.kept_by(&end.facts),
            };
            let joined = start.join(end);
            start =
                State { facts, cleared: before.cleared.clone(), refused: before.refused.clone(), ..joined };
            round += 1;
        }
    }

    /// What is known before a loop, also of how its counters stand to each other and to the end of a text: `j ≤ i` may
    /// hold in all iterations where `j = 0` does not.
    fn with_differences(&self, before: &State, changed: &BTreeSet<String>) -> Facts {
        let counter = |name: &String| {
            let value = before.vars.get(name)?;
            match &value.pointer {
                Some(pointer) => Some((pointer.base.as_str(), pointer.offset.clone())),
                None => Some(("", value.number.clone()?)),
            }
        };
        let counters: Vec<(&str, Linear)> = changed.iter().filter_map(counter).take(COUNTERS).collect();
        let last_sign = |base: &str| Linear::symbol(length_symbol(base)).add(-1);
        let pointers = counters.iter().filter(|(base, _)| !base.is_empty());
        let lasts: Vec<(&str, Linear)> = pointers.map(|(base, _)| (*base, last_sign(base))).collect();
        let mut facts = before.facts.clone();
        for (base, one) in counters.iter().chain(&lasts) {
            for (_, other) in counters.iter().filter(|(others, other)| others == base && other != one) {
                let difference = one.minus(other);
                if before.facts.proves(&difference) {
                    facts.learn(difference);
                }
            }
        }
        facts
    }

    fn round(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        let test = node.child_by_field_name("condition");
        if let Some(test) = test.filter(|_| node.kind() != "do_statement") {
            self.eval(test, state)?;
            self.refine(test, true, state)?;
        }
        if let Some(body) = node.child_by_field_name("body") {
            self.statement(body, state)?;
        }
        let continues =
            self.frames.last_mut().map(|frame| std::mem::take(&mut frame.continues)).unwrap_or_default();
        *state = continues.into_iter().fold(std::mem::take(state), State::join);
        if let Some(update) = node.child_by_field_name("update").filter(|_| !state.dead) {
            self.eval(update, state)?;
        }
        if let Some(test) = test.filter(|_| node.kind() == "do_statement" && !state.dead) {
            self.eval(test, state)?;
        }
        Ok(())
    }

    fn take_jumps(&mut self) -> Vec<State> {
        let Some(frame) = self.frames.last_mut() else { return Vec::new() };
        frame.continues.clear();
        std::mem::take(&mut frame.breaks)
    }

    /// Names that a loop assigns.
    pub(super) fn changed(&self, node: Node<'t>, names: &mut BTreeSet<String>) {
        let target = match node.kind() {
            "assignment_expression" => node.child_by_field_name("left"),
            "update_expression" => node.child_by_field_name("argument"),
            "pointer_expression" if self.text(node).starts_with('&') => node.child_by_field_name("argument"),
            _ => None,
        };
        if let Some(target) = target {
            names.insert(self.text(target).to_owned());
        }
        for child in children(node) {
            self.changed(child, names);
        }
    }

    pub(super) fn unknown(&self, state: &State, changed: &BTreeSet<String>) -> State {
        let mut state = state.clone();
        for name in changed {
            self.forget(name, &mut state);
        }
        state
    }

    /// A variable may have any value of its type.
    pub(super) fn forget(&self, name: &str, state: &mut State) {
        let symbol = self.symbol(name);
        state.facts.forget(&symbol);
        state.facts.forget(&format!("@{symbol}"));
        if let Some(value) = state.vars.get_mut(name) {
            value.number = Some(Linear::symbol(symbol));
            value.literal = false;
        }
    }

    fn switch(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        let subject = node.child_by_field_name("condition").map(|it| self.eval(it, state)).transpose()?;
        let subject = subject.unwrap_or_default();
        let outer = self.frames.last_mut().map(|frame| std::mem::take(&mut frame.breaks));
        let mut falling = State::dead();
        let mut rest = state.clone();
        let mut total = false;
        let cases: Vec<Node<'t>> = node.child_by_field_name("body").into_iter().flat_map(children).collect();
        for case in cases.into_iter().filter(|case| case.kind() == "case_statement") {
            let value = case.child_by_field_name("value");
            let mut entered = rest.clone();
            match value {
                Some(value) => {
                    let literal = self.eval(value, state)?;
                    entered = state.clone();
                    entered.cleared.clear(&state.content(&subject), Dangers::ALL);
                    self.refuse(&subject, &literal, &mut rest);
                }
                None => total = true,
            }
            falling = falling.join(entered);
            for statement in children(case).skip(usize::from(value.is_some())) {
                if !falling.dead {
                    self.statement(statement, &mut falling)?;
                }
            }
        }
        let breaks = match (self.frames.last_mut(), outer) {
            (Some(frame), Some(outer)) => std::mem::replace(&mut frame.breaks, outer),
            _ => Vec::new(),
        };
        let after = if total { falling } else { falling.join(rest) };
        *state = breaks.into_iter().fold(after, State::join);
        Ok(())
    }

    /// A sign of untrusted text is known not to be this one.
    pub(super) fn refuse(&mut self, subject: &Value, literal: &Value, state: &mut State) {
        let taint = state.content(subject);
        if taint.is_empty() || literal.text.chars().count() != 1 {
            return;
        }
        state.cleared.clear(&taint, Dangers::UNCHECKED);
        for origin in taint.origins() {
            let signs = state.refused.entry(origin).or_default();
            if !signs.contains(&literal.text) {
                signs.push_str(&literal.text);
            }
            let mut ruled_out = crate::code::pattern::refused_signs(signs);
            if signs.contains('<') {
                ruled_out = ruled_out.with(Dangers::HTML);
            }
            if signs.contains('\'') && signs.contains('"') {
                ruled_out = ruled_out.with(Dangers::SQL);
            }
            let one = crate::code::taint::Taint::of(origin);
            state.cleared.clear(&one, ruled_out);
        }
    }
}
