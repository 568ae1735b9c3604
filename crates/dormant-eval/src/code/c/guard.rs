//! Checks: what a test rules out on the way that it leads to.

use tree_sitter::Node;

use super::linear::Linear;
use super::value::{State, Value};
use super::{Walk, Walker, children};
use crate::code::pattern;
use crate::code::taint::{Cleared, Dangers};

impl<'t> Walker<'t> {
    /// Takes into account that `test` came out as `truth`.
    pub(super) fn refine(&mut self, test: Node<'t>, truth: bool, state: &mut State) -> Walk {
        self.budget.enter()?;
        match test.kind() {
            "parenthesized_expression" => {
                if let Some(inner) = test.named_child(0) {
                    self.refine(inner, truth, state)?;
                }
            }
            "unary_expression" if self.field_text(test, "operator") == "!" => {
                if let Some(inner) = test.child_by_field_name("argument") {
                    self.refine(inner, !truth, state)?;
                }
            }
            "binary_expression" => self.refine_binary(test, truth, state)?,
            "call_expression" => self.refine_call(test, truth, state)?,
            "assignment_expression" => {
                if let Some(right) = test.child_by_field_name("right") {
                    self.refine(right, truth, state)?;
                }
            }
            "comma_expression" => {
                if let Some(last) = children(test).last() {
                    self.refine(last, truth, state)?;
                }
            }
            "subscript_expression" | "pointer_expression" if truth => self.inside_text(test, state)?,
            "identifier" | "field_expression" if truth => {
                // Not zero, of what is never negative.
                let value = self.eval(test, state)?;
                if let Some(number) = value.number.filter(|number| state.facts.proves(number)) {
                    state.facts.learn(number.add(-1));
                }
            }
            _ => {}
        }
        self.budget.leave();
        Ok(())
    }

    fn refine_binary(&mut self, test: Node<'t>, truth: bool, state: &mut State) -> Walk {
        let (Some(left), Some(right)) = (test.child_by_field_name("left"), test.child_by_field_name("right"))
        else {
            return Ok(());
        };
        let operator = self.field_text(test, "operator");
        match operator {
            "&&" | "||" => {
                if (operator == "&&") == truth {
                    self.refine(left, truth, state)?;
                    return self.refine(right, truth, state);
                }
                let (mut first, mut second) = (state.clone(), state.clone());
                self.refine(left, truth, &mut first)?;
                self.refine(left, !truth, &mut second)?;
                self.refine(right, truth, &mut second)?;
                let joined = first.join(second);
                state.cleared = joined.cleared;
                state.facts = joined.facts;
                state.refused = joined.refused;
            }
            "==" | "!=" => self.refine_equal(left, right, (operator == "==") == truth, state)?,
            "<" => self.ordered(left, right, truth, 1, state)?,
            "<=" => self.ordered(left, right, truth, 0, state)?,
            ">" => self.ordered(right, left, truth, 1, state)?,
            ">=" => self.ordered(right, left, truth, 0, state)?,
            _ => {}
        }
        Ok(())
    }

    /// `less + gap ≤ more` came out as `truth`.
    fn ordered(&mut self, less: Node<'t>, more: Node<'t>, truth: bool, gap: i64, state: &mut State) -> Walk {
        for node in [less, more] {
            self.signed_by_cast(node, state)?;
        }
        let (less, more) = (self.eval(less, state)?, self.eval(more, state)?);
        if let Some(difference) = self.sum(&more, &less, true).number {
            let form = if truth { difference.add(-gap) } else { difference.times(-1).add(gap - 1) };
            state.facts.learn(form);
        }
        let (above, below) = if truth { (&less, &more) } else { (&more, &less) };
        for (value, danger) in [(above, Dangers::HIGH), (below, Dangers::LOW)] {
            let taint = state.content(value);
            state.cleared.clear(&taint, danger.with(Dangers::UNCHECKED));
        }
        Ok(())
    }

    /// A comparison as an unsigned number speaks of negative ones too.
    fn signed_by_cast(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        if node.kind() == "cast_expression" && super::is_unsigned(self.field_text(node, "type")) {
            let value = self.eval(node, state)?;
            for symbol in value.number.iter().flat_map(Linear::symbols) {
                state.facts.learn_natural(symbol);
            }
        }
        Ok(())
    }

    fn refine_equal(&mut self, left: Node<'t>, right: Node<'t>, equal: bool, state: &mut State) -> Walk {
        let is_zero = |text: &str| matches!(text, "0" | "NULL" | "nullptr" | "false" | "'\\0'");
        if is_zero(self.text(right)) && right.kind() != "char_literal" && self.call_in(left).is_some() {
            return self.refine(left, !equal, state);
        }
        let (one, other) = (self.eval(left, state)?, self.eval(right, state)?);
        for (node, literal) in [(left, &other), (right, &one)] {
            let sign = literal.number.as_ref().and_then(Linear::as_constant);
            if sign.is_some_and(|sign| (sign != 0) == equal) {
                self.inside_text(node, state)?;
            }
        }
        for (node, value, literal) in [(left, &one, &other), (right, &other, &one)] {
            self.compared(node, value, literal, equal, state)?;
        }
        if let Some(difference) = self.sum(&one, &other, true).number {
            if equal {
                state.facts.learn(difference.clone());
                state.facts.learn(difference.times(-1));
            } else if state.facts.proves(&difference) {
                state.facts.learn(difference.add(-1));
            }
        }
        // `name[strspn(name, ALLOWED)] == '\0'`, `strspn(name, ALLOWED) == strlen(name)`
        if equal {
            for node in [left, right] {
                if let Some(span) = self.find_call(node, "strspn") {
                    self.spanned(span, state)?;
                }
            }
        }
        Ok(())
    }

    /// `text[i]` or `*p` is a sign and not the end of the text.
    fn inside_text(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        // It was evaluated before; once more would move `i++` again.
        let moves = ["++", "--", "="].iter().any(|sign| self.text(node).contains(sign));
        let place = match (node.kind(), node.child_by_field_name("argument")) {
            _ if moves => return Ok(()),
            ("subscript_expression", _) => {
                let (base, index) = self.element(node, state)?;
                self.sum(&base, &Value { pointer: None, ..index }, false)
            }
            ("pointer_expression", Some(pointer)) if self.text(node).starts_with('*') => {
                self.eval(pointer, state)?
            }
            _ => return Ok(()),
        };
        let is_text = state.buffer(&place).is_some_and(|buffer| buffer.element == 1);
        if let (Some(length), Some(pointer), true) = (self.length(&place, state), &place.pointer, is_text) {
            state.facts.learn(length.minus(&pointer.offset).add(-1));
        }
        Ok(())
    }

    /// `value` was compared with `literal`.
    fn compared(
        &mut self,
        node: Node<'t>,
        value: &Value,
        literal: &Value,
        equal: bool,
        state: &mut State,
    ) -> Walk {
        let taint = state.content(value);
        if taint.is_empty() || !literal.literal {
            return Ok(());
        }
        let is_sign = literal.text.chars().count() == 1;
        if is_sign {
            let at_start = node.kind() == "subscript_expression" && self.field_text(node, "index") == "0";
            if equal {
                state.cleared.clear(&taint, Dangers::ALL);
            } else if !at_start {
                self.refuse(value, literal, state);
            } else if literal.text == "/" {
                state.cleared.clear(&taint, Dangers::PATH_ABS);
            }
        } else if let Some(number) = literal.number.as_ref().and_then(Linear::as_constant) {
            // Not zero is a check of a divisor or of a result; another number is one of a choice.
            let ruled_out = if equal && number != 0 { Dangers::ALL } else { Dangers::UNCHECKED };
            let end_of_text = number == 0 && node.kind() != "identifier";
            if !end_of_text {
                state.cleared.clear(&taint, ruled_out);
            }
        }
        Ok(())
    }

    fn call_in(&self, node: Node<'t>) -> Option<Node<'t>> {
        match node.kind() {
            "call_expression" => Some(node),
            "parenthesized_expression" => self.call_in(node.named_child(0)?),
            "assignment_expression" => self.call_in(node.child_by_field_name("right")?),
            _ => None,
        }
    }

    fn find_call(&self, node: Node<'t>, name: &str) -> Option<Node<'t>> {
        if node.kind() == "call_expression" && self.field_text(node, "function") == name {
            return Some(node);
        }
        children(node).find_map(|child| self.find_call(child, name))
    }

    pub(super) fn arguments(&self, call: Node<'t>) -> Vec<Node<'t>> {
        call.child_by_field_name("arguments")
            .into_iter()
            .flat_map(children)
            .filter(|it| it.kind() != "comment")
            .collect()
    }

    fn argument(&mut self, call: Node<'t>, index: usize, state: &mut State) -> Walk<Value> {
        let node = self.arguments(call).get(index).copied();
        Ok(node.map(|node| self.eval(node, state)).transpose()?.unwrap_or_default())
    }

    fn spanned(&mut self, call: Node<'t>, state: &mut State) -> Walk {
        let (subject, allowed) = (self.argument(call, 0, state)?, self.argument(call, 1, state)?);
        let taint = state.content(&subject);
        let text = state.text(&allowed);
        let ruled_out = if text.is_empty() {
            Dangers::TEXT
        } else {
            pattern::accepted(&format!("[{text}]+"), true, true)
        };
        state.cleared.clear(&taint, ruled_out.with(Dangers::UNCHECKED));
        Ok(())
    }

    fn refine_call(&mut self, call: Node<'t>, truth: bool, state: &mut State) -> Walk {
        let name = self.field_text(call, "function").to_owned();
        if let Some(function) = self.functions.get(&name).copied() {
            return self.refine_local(call, function, truth, state);
        }
        let first = self.argument(call, 0, state)?;
        let second = self.argument(call, 1, state)?;
        let taint = state.content(&first);
        match name.as_str() {
            "isalnum" | "isalpha" | "isdigit" | "isxdigit" | "islower" | "isupper" => {
                let mut ruled_out = Dangers::UNCHECKED;
                if truth {
                    ruled_out = ruled_out.with(Dangers::TEXT);
                    if name == "isdigit" {
                        ruled_out = ruled_out.with(Dangers::LOW);
                    }
                }
                state.cleared.clear(&taint, ruled_out);
            }
            "strcmp" | "strcasecmp" | "memcmp" | "CRYPTO_memcmp" if !truth => {
                for (value, other) in [(&first, &second), (&second, &first)] {
                    if state.left(other) == Dangers::NONE {
                        let taint = state.content(value);
                        state.cleared.clear(&taint, Dangers::ALL);
                    }
                }
            }
            "strncmp" | "g_str_has_prefix" => self.prefixed(&name, truth, &first, &second, state),
            "strstr" | "strcasestr" => {
                let ruled_out =
                    if truth { Dangers::NONE } else { pattern::refused_part(&state.text(&second)) };
                state.cleared.clear(&taint, ruled_out.with(Dangers::UNCHECKED));
            }
            "strchr" | "strrchr" | "memchr" => {
                if first.literal || taint.is_empty() {
                    let sign = state.content(&second);
                    let signs = state.text(&first);
                    let ruled_out = if truth {
                        pattern::accepted(&format!("[{signs}]"), true, true)
                    } else {
                        pattern::refused_signs(&signs)
                    };
                    state.cleared.clear(&sign, ruled_out.with(Dangers::UNCHECKED));
                } else if !truth {
                    let mut ruled_out = pattern::refused_part(&second.text);
                    if second.text.is_empty() && name == "memchr" {
                        ruled_out = Dangers::NONE;
                    }
                    self.refuse(&first, &second, state);
                    state.cleared.clear(&taint, ruled_out.with(Dangers::UNCHECKED));
                }
            }
            "strpbrk" if !truth => {
                state
                    .cleared
                    .clear(&taint, pattern::refused_signs(&state.text(&second)).with(Dangers::UNCHECKED));
            }
            "regexec" if !truth => {
                let subject = state.content(&second);
                state.cleared.clear(&subject, Dangers::TEXT.with(Dangers::UNCHECKED));
            }
            "fnmatch" => state.cleared.clear(&state.content(&second), Dangers::UNCHECKED),
            "sscanf" | "scanf" | "fscanf" => {}
            _ if self.rules.validators.is_match(&name) && truth => {
                for i in 0..self.arguments(call).len() {
                    let value = self.argument(call, i, state)?;
                    let taint = state.content(&value);
                    state.cleared.clear(&taint, Dangers::ALL);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `strncmp(path, base, n) == 0` holds a resolved path inside.
    fn prefixed(&mut self, name: &str, truth: bool, first: &Value, second: &Value, state: &mut State) {
        let same = if name == "strncmp" { !truth } else { truth };
        for (value, other) in [(first, second), (second, first)] {
            let taint = state.content(value);
            if same && state.buffer(value).is_some_and(|buffer| buffer.resolved) {
                state.cleared.clear(&taint, Dangers::PATH);
            } else if !same && state.text(other).starts_with('/') {
                state.cleared.clear(&taint, Dangers::PATH_ABS);
            }
            state.cleared.clear(&taint, Dangers::UNCHECKED);
        }
    }

    /// What a function of the file rules out where it returns zero, or something else.
    fn refine_local(&mut self, call: Node<'t>, function: Node<'t>, truth: bool, state: &mut State) -> Walk {
        let Some((returns, _)) = self.inline(call, function, state)? else { return Ok(()) };
        let mut all: Option<(Cleared, State)> = None;
        for (mut at, expression, value) in returns {
            let constant = value
                .number
                .as_ref()
                .filter(|_| value.literal || expression.is_some_and(|it| it.kind() == "unary_expression"))
                .and_then(Linear::as_constant)
                .map(|number| number != 0);
            if constant == Some(!truth) {
                continue;
            }
            if let Some(expression) = expression.filter(|_| constant.is_none()) {
                self.refine(expression, truth, &mut at)?;
            }
            all = Some(match all {
                Some((cleared, state)) => (cleared.meet(&at.cleared), state.join(at)),
                None => (at.cleared.clone(), at),
            });
        }
        if let Some((cleared, at)) = all {
            state.cleared = cleared;
            state.facts = at.facts;
        }
        Ok(())
    }
}
