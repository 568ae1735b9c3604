//! Statements: how variables and checks flow.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walk, Walker, children, line};
use crate::code::taint::Dangers;

impl<'t> Walker<'t> {
    pub(super) fn block(&mut self, block: Node<'t>, state: &mut State<'t>) -> Walk {
        for statement in children(block) {
            if state.dead {
                break;
            }
            self.statement(statement, state)?;
        }
        Ok(())
    }

    fn statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        self.budget.enter()?;
        self.budget.charge(state.vars.len());
        match node.kind() {
            "expression_statement" => {
                for child in children(node) {
                    self.expression_statement(child, state)?;
                }
            }
            "return_statement" => self.leave_function(node, state)?,
            "raise_statement" => {
                for child in children(node) {
                    self.eval(child, state)?;
                }
                state.dead = true;
            }
            "if_statement" => self.if_statement(node, state)?,
            "for_statement" => self.for_statement(node, state)?,
            "while_statement" => self.while_statement(node, state)?,
            "try_statement" => self.try_statement(node, state)?,
            "with_statement" => self.with_statement(node, state)?,
            "match_statement" => self.match_statement(node, state)?,
            "assert_statement" => {
                if let Some(test) = node.named_child(0) {
                    self.eval(test, state)?;
                    self.refine(test, true, state)?;
                }
            }
            "break_statement" => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.breaks.push(state.clone());
                }
                state.dead = true;
            }
            "continue_statement" => state.dead = true,
            "function_definition" => self.nested_function(node, state)?,
            "decorated_definition" => {
                if let Some(definition) = node.child_by_field_name("definition") {
                    self.statement(definition, state)?;
                }
            }
            "class_definition" => {
                if let Some(body) = node.child_by_field_name("body") {
                    self.block(body, state)?;
                }
            }
            "block" => self.block(node, state)?,
            _ => {}
        }
        self.budget.leave();
        Ok(())
    }

    /// A function inside another one that nothing calls by name: a callback, with the variables around it.
    fn nested_function(&mut self, node: Node<'t>, state: &State<'t>) -> Walk {
        if !self.top_level && !self.called.contains(&self.key(node)) && self.frames.len() < super::INLINE {
            self.enter(node, state)?;
        }
        Ok(())
    }

    fn expression_statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        match node.kind() {
            "assignment" => self.assignment(node, state),
            "augmented_assignment" => self.augmented(node, state),
            _ => {
                let value = self.eval(node, state)?;
                if self.never_returns(node, &value) {
                    state.dead = true;
                }
                Ok(())
            }
        }
    }

    fn never_returns(&self, node: Node<'t>, value: &Value<'t>) -> bool {
        let ends = [
            "sys.exit()",
            "os._exit()",
            "exit()",
            "quit()",
            "abort()",
            "flask.abort()",
            "parser.error()",
            "pytest.fail()",
        ];
        node.kind() == "call"
            && ends.iter().any(|end| value.path() == *end || value.path().ends_with(&format!(".{end}")))
    }

    fn assignment(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let Some(right) = node.child_by_field_name("right") else { return Ok(()) };
        let value = if right.kind() == "assignment" {
            self.assignment(right, state)?;
            right
                .child_by_field_name("left")
                .map(|left| self.eval(left, state))
                .transpose()?
                .unwrap_or_default()
        } else {
            self.eval(right, state)?
        };
        let Some(left) = node.child_by_field_name("left") else { return Ok(()) };
        if matches!(left.kind(), "attribute" | "subscript") {
            self.stored(left, right, &value, state)?;
        }
        self.bind(left, value, state)
    }

    /// A field or an entry is set: money, stock and the like must not change by a negative number.
    fn stored(&mut self, left: Node<'t>, right: Node<'t>, value: &Value<'t>, state: &mut State<'t>) -> Walk {
        self.used(value, left, state);
        if right.kind() == "binary_operator" && self.field_text(right, "operator") == "-" {
            let same = right.child_by_field_name("left").is_some_and(|old| self.text(old) == self.text(left));
            let amount = right.child_by_field_name("right");
            if let (true, Some(amount)) = (same, amount) {
                let amount = self.eval(amount, state)?;
                self.amount(left, &amount, state);
            }
        }
        Ok(())
    }

    fn amount(&mut self, node: Node<'t>, amount: &Value<'t>, state: &State<'t>) {
        if amount.taint.is_empty() {
            return;
        }
        self.report.evidence.insert(20);
        if state.left(amount).has(Dangers::LOW) {
            let message = "an untrusted amount is taken away although it may be negative";
            self.report.found(20, "python/unchecked-amount", line(node), message);
        }
    }

    fn augmented(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let (Some(left), Some(right)) = (node.child_by_field_name("left"), node.child_by_field_name("right"))
        else {
            return Ok(());
        };
        let change = self.eval(right, state)?;
        let operator = self.field_text(node, "operator");
        if matches!(left.kind(), "attribute" | "subscript") {
            self.used(&change, left, state);
            if operator == "-=" {
                self.amount(left, &change, state);
            }
        }
        let old = self.eval(left, state)?;
        let value = match operator {
            "+=" if old.items.is_empty() => old.concat(&change),
            "+=" => {
                let mut value = old;
                value.absorb(&change);
                value
            }
            "/=" => self.join_paths(&old, &change),
            "%=" => self.percent(&old, &change, right, state),
            _ => old.or(&change),
        };
        self.bind(left, value, state)
    }

    /// Binds a target, which may be a pattern.
    pub(super) fn bind(&mut self, target: Node<'t>, value: Value<'t>, state: &mut State<'t>) -> Walk {
        match target.kind() {
            "pattern_list" | "tuple_pattern" | "list_pattern" | "tuple" | "list" => {
                let targets: Vec<_> = children(target).collect();
                let fits = value.items.len() == targets.len();
                for (i, target) in targets.into_iter().enumerate() {
                    let part = if fits {
                        value.items[i].clone()
                    } else {
                        Value { items: Vec::new(), ..value.clone() }
                    };
                    self.bind(target, part, state)?;
                }
            }
            "list_splat_pattern" | "parenthesized_expression" | "as_pattern_target" => {
                if let Some(inner) = target.named_child(0) {
                    self.bind(inner, value, state)?;
                }
            }
            "subscript" => {
                if let Some(container) = target.child_by_field_name("value") {
                    let name = self.text(container).to_owned();
                    let key = target
                        .child_by_field_name("subscript")
                        .map(|key| self.eval(key, state))
                        .transpose()?;
                    let mut old = self.lookup(&name, state).unwrap_or_default();
                    if let Some(key) = key.as_ref().filter(|_| old.literal && old.fields.is_empty()) {
                        self.index(target, key, state);
                    }
                    old.absorb(&value);
                    if let Some(key) = key.filter(|key| key.literal) {
                        old.fields.insert(key.text, value);
                    }
                    state.vars.insert(name, old);
                }
            }
            _ => {
                state.vars.insert(self.text(target).to_owned(), value);
            }
        }
        Ok(())
    }

    fn leave_function(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let expression = node.named_child(0);
        let value = expression.map(|node| self.eval(node, state)).transpose()?.unwrap_or_default();
        if let Some(expression) = expression {
            self.returned(expression, &value, state)?;
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.returns.push((state.clone(), expression, value));
        }
        state.dead = true;
        Ok(())
    }

    fn if_statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let mut after = State { dead: true, ..State::default() };
        let mut rest = state.clone();
        let mut cursor = node.walk();
        let clauses: Vec<_> = node.children_by_field_name("alternative", &mut cursor).collect();
        for clause in std::iter::once(node).chain(clauses) {
            if let Some(test) = clause.child_by_field_name("condition") {
                self.eval(test, &mut rest)?;
                let mut then = rest.clone();
                self.refine(test, true, &mut then)?;
                if let Some(block) = clause.child_by_field_name("consequence") {
                    self.block(block, &mut then)?;
                }
                after = after.join(then);
                self.refine(test, false, &mut rest)?;
            } else if let Some(block) = clause.child_by_field_name("body") {
                self.block(block, &mut rest)?;
            }
        }
        *state = after.join(rest);
        Ok(())
    }

    fn for_statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let (Some(target), Some(iterable), Some(body)) = (
            node.child_by_field_name("left"),
            node.child_by_field_name("right"),
            node.child_by_field_name("body"),
        ) else {
            return Ok(());
        };
        let element = self.element(iterable, state)?;
        self.repeat(state, |walker, state| {
            walker.bind(target, element.clone(), state)?;
            walker.block(body, state)
        })?;
        if let Some(body) =
            node.child_by_field_name("alternative").and_then(|it| it.child_by_field_name("body"))
        {
            self.block(body, state)?;
        }
        Ok(())
    }

    /// Twice, so that what an iteration leaves reaches the next; then whatever way out there is. A loop is taken
    /// to run at least once: without an element there is nothing to check either.
    fn repeat(
        &mut self,
        state: &mut State<'t>,
        mut body: impl FnMut(&mut Self, &mut State<'t>) -> Walk,
    ) -> Walk {
        let outer = self.frames.last_mut().map(|frame| std::mem::take(&mut frame.breaks));
        let before = state.clone();
        let mut last = before.clone();
        for _ in 0..2 {
            let mut round = if last.dead { before.clone() } else { last };
            body(self, &mut round)?;
            last = round;
        }
        let breaks = match (self.frames.last_mut(), outer) {
            (Some(frame), Some(outer)) => std::mem::replace(&mut frame.breaks, outer),
            _ => Vec::new(),
        };
        let after = breaks.into_iter().fold(last, State::join);
        *state = if after.dead { before } else { join_vars(after, before) };
        Ok(())
    }

    fn while_statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let (Some(test), Some(body)) =
            (node.child_by_field_name("condition"), node.child_by_field_name("body"))
        else {
            return Ok(());
        };
        let forever = matches!(self.text(test), "True" | "1");
        self.repeat(state, |walker, state| {
            walker.eval(test, state)?;
            walker.refine(test, true, state)?;
            walker.block(body, state)?;
            if forever {
                state.dead = true;
            }
            Ok(())
        })?;
        if !forever {
            self.refine(test, false, state)?;
        }
        Ok(())
    }

    fn try_statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let before = state.clone();
        if let Some(body) = node.child_by_field_name("body") {
            self.block(body, state)?;
        }
        let mut after_body = state.clone();
        let mut handlers = State { dead: true, ..State::default() };
        for clause in children(node) {
            match clause.kind() {
                "except_clause" | "except_group_clause" => {
                    let mut handler = join_vars(before.clone(), state.clone());
                    let block = children(clause).find(|child| child.kind() == "block");
                    block.map_or(Ok(()), |block| self.block(block, &mut handler))?;
                    handlers = handlers.join(handler);
                }
                "else_clause" => {
                    let block = clause.child_by_field_name("body");
                    block.map_or(Ok(()), |block| self.block(block, &mut after_body))?;
                }
                _ => {}
            }
        }
        let mut after = after_body.join(handlers);
        for clause in children(node).filter(|clause| clause.kind() == "finally_clause") {
            let dead = std::mem::take(&mut after.dead);
            let block = children(clause).find(|child| child.kind() == "block");
            block.map_or(Ok(()), |block| self.block(block, &mut after))?;
            after.dead |= dead;
        }
        *state = after;
        Ok(())
    }

    fn with_statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        for clause in children(node).filter(|child| child.kind() == "with_clause") {
            for item in children(clause) {
                let Some(value) = item.child_by_field_name("value") else { continue };
                if value.kind() == "as_pattern" {
                    self.as_pattern(value, state)?;
                } else {
                    self.eval(value, state)?;
                }
            }
        }
        node.child_by_field_name("body").map_or(Ok(()), |body| self.block(body, state))
    }

    pub(super) fn as_pattern(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let value = node.named_child(0).map(|value| self.eval(value, state)).transpose()?.unwrap_or_default();
        if let Some(alias) = node.child_by_field_name("alias") {
            self.bind(alias, value.clone(), state)?;
        }
        Ok(value)
    }

    fn match_statement(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk {
        let subject = node.child_by_field_name("subject").map(|it| self.eval(it, state)).transpose()?;
        let mut after = State { dead: true, ..State::default() };
        let mut total = false;
        let cases = node.child_by_field_name("body").into_iter().flat_map(children);
        for case in cases.filter(|child| child.kind() == "case_clause") {
            let mut branch = state.clone();
            let pattern = children(case).next().map_or("", |pattern| self.text(pattern));
            total |= pattern == "_";
            let literal = pattern
                .split('|')
                .all(|one| one.trim().starts_with(['"', '\'']) || one.trim().parse::<f64>().is_ok());
            if let (true, Some(subject)) = (literal, &subject) {
                branch.cleared.clear(&subject.taint, Dangers::ALL);
            }
            if let Some(block) = case.child_by_field_name("consequence") {
                self.block(block, &mut branch)?;
            }
            after = after.join(branch);
        }
        *state = if total { after } else { after.join(state.clone()) };
        Ok(())
    }
}

/// The variables of both, the checks of the first.
fn join_vars<'t>(first: State<'t>, second: State<'t>) -> State<'t> {
    let cleared = first.cleared.clone();
    State { cleared, ..first.join(second) }
}
