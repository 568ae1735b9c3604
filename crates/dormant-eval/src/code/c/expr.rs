//! Expressions.

use tree_sitter::Node;

use super::linear::Linear;
use super::value::{Pointer, State, Value, append};
use super::{Walk, Walker, children, line};
use crate::code::taint::{Dangers, Taint};

impl<'t> Walker<'t> {
    pub(super) fn eval(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        self.budget.enter()?;
        let value = match node.kind() {
            "identifier" => self.identifier(node, state),
            "number_literal" => Value {
                number: self.constant(self.text(node)).map(Linear::constant),
                text: String::new(),
                literal: true,
                ..Value::default()
            },
            "char_literal" => self.character(node),
            "string_literal" | "concatenated_string" => self.string(node),
            "null" | "true" | "false" => Value {
                literal: true,
                number: self
                    .constant(if self.text(node) == "true" { "1" } else { "0" })
                    .map(Linear::constant),
                ..Value::default()
            },
            "parenthesized_expression" => self.inner(node, state)?,
            "cast_expression" => {
                let value = node.child_by_field_name("value");
                value.map(|it| self.eval(it, state)).transpose()?.unwrap_or_default()
            }
            "assignment_expression" => self.assignment(node, state)?,
            "update_expression" => self.update(node, state)?,
            "call_expression" => self.call(node, state)?,
            "binary_expression" => self.binary(node, state)?,
            "unary_expression" => {
                let argument = node.child_by_field_name("argument");
                let value = argument.map(|it| self.eval(it, state)).transpose()?.unwrap_or_default();
                match self.field_text(node, "operator") {
                    "-" => Value { number: value.number.map(|number| number.times(-1)), ..value },
                    "!" => Value::default(),
                    _ => Value { number: None, ..value },
                }
            }
            "pointer_expression" => self.pointer(node, state)?,
            "subscript_expression" => self.subscript(node, state)?,
            "field_expression" => self.field_access(node, state)?,
            "sizeof_expression" => self.size_of(node, state)?,
            "conditional_expression" => self.conditional(node, state)?,
            "comma_expression" => {
                let mut last = Value::default();
                for child in children(node) {
                    last = self.eval(child, state)?;
                }
                last
            }
            "initializer_list" | "initializer_pair" | "compound_literal_expression" => {
                let mut all = Value { literal: true, ..Value::default() };
                for child in children(node) {
                    let value = self.eval(child, state)?;
                    all.taint.join(&state.content(&value));
                    append(&mut all.text, &state.text(&value));
                    all.literal &= value.literal;
                }
                all
            }
            _ => Value::default(),
        };
        self.budget.leave();
        Ok(value)
    }

    fn inner(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        Ok(node.named_child(0).map(|it| self.eval(it, state)).transpose()?.unwrap_or_default())
    }

    fn identifier(&mut self, node: Node<'t>, state: &mut State) -> Value {
        let name = self.text(node);
        if let Some(value) = state.vars.get(name).or_else(|| self.globals.vars.get(name)) {
            return value.clone();
        }
        if let Some(text) = self.macros.get(name) {
            let number = self.constant(name).map(Linear::constant);
            return Value {
                number,
                text: text.trim_matches('"').to_owned(),
                literal: true,
                ..Value::default()
            };
        }
        Value::number(Linear::symbol(self.symbol(name)))
    }

    fn character(&self, node: Node<'t>) -> Value {
        let text = unescape(self.text(node).trim_start_matches('L').trim_matches('\''));
        let zero = self.text(node) == "'\\0'";
        let number = if zero { Some(0) } else { text.chars().next().map(|c| i64::from(c as u32)) };
        Value {
            text: if zero { String::new() } else { text },
            literal: true,
            number: number.map(Linear::constant),
            ..Value::default()
        }
    }

    pub(super) fn string(&self, node: Node<'t>) -> Value {
        let mut whole = Value { literal: true, ..Value::default() };
        let parts = if node.kind() == "string_literal" { vec![node] } else { children(node).collect() };
        for part in parts {
            let text = match part.kind() {
                "string_literal" => unescape(self.text(part).trim_start_matches('L').trim_matches('"')),
                _ => self
                    .macros
                    .get(self.text(part))
                    .map_or_else(|| "0".to_owned(), |text| unescape(text.trim_matches('"'))),
            };
            append(&mut whole.text, &text);
        }
        whole
    }

    fn assignment(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let (Some(left), Some(right)) = (node.child_by_field_name("left"), node.child_by_field_name("right"))
        else {
            return Ok(Value::default());
        };
        let operator = self.field_text(node, "operator");
        let change = self.eval(right, state)?;
        let value = match operator {
            "=" => change.clone(),
            "+=" | "-=" => {
                let old = self.read(left, state)?;
                if operator == "-=" {
                    self.taken_away(left, &change, state);
                }
                self.sum(&old, &change, operator == "-=")
            }
            _ => {
                let old = self.read(left, state)?;
                Value { number: None, pointer: None, ..old.or(&change) }
            }
        };
        self.used(&change, node, state);
        self.store(left, &value, right, state)?;
        Ok(value)
    }

    /// Money, stock and the like must not change by a negative number.
    fn taken_away(&mut self, left: Node<'t>, amount: &Value, state: &State) {
        let taint = state.content(amount);
        if left.kind() == "identifier" || taint.is_empty() {
            return;
        }
        self.report.evidence.insert(20);
        let natural = amount.number.as_ref().is_some_and(|number| state.facts.proves(number));
        if !natural && state.cleared.left(&taint).has(Dangers::LOW) {
            let message = "an untrusted amount is taken away although it may be negative";
            self.report.found(20, "c/unchecked-amount", line(left), message);
        }
    }

    /// What an assignment target holds, without judging the access.
    fn read(&mut self, left: Node<'t>, state: &mut State) -> Walk<Value> {
        if left.kind() == "identifier" { Ok(self.identifier(left, state)) } else { self.eval(left, state) }
    }

    fn store(&mut self, left: Node<'t>, value: &Value, right: Node<'t>, state: &mut State) -> Walk {
        match left.kind() {
            "identifier" | "field_expression" => self.set(self.text(left), value.clone(), Some(right), state),
            "parenthesized_expression" => {
                if let Some(inner) = left.named_child(0) {
                    self.store(inner, value, right, state)?;
                }
            }
            "subscript_expression" | "pointer_expression" => self.write_element(left, value, state)?,
            _ => {}
        }
        Ok(())
    }

    fn update(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let Some(argument) = node.child_by_field_name("argument") else { return Ok(Value::default()) };
        let before = self.read(argument, state)?;
        let step = if self.field_text(node, "operator") == "++" { 1 } else { -1 };
        let change = Value::number(Linear::constant(step));
        let after = self.sum(&before, &change, false);
        if matches!(argument.kind(), "identifier" | "field_expression") {
            self.set(self.text(argument), after, Some(node), state);
        }
        let prefix = self.text(node).starts_with(['+', '-']);
        let now = self.read(argument, state)?;
        Ok(if prefix { now } else { self.sum(&now, &Value::number(Linear::constant(-step)), false) })
    }

    pub(super) fn sum(&self, left: &Value, right: &Value, negative: bool) -> Value {
        let factor = if negative { -1 } else { 1 };
        let add = |one: &Linear, other: &Linear| one.plus(&other.times(factor));
        let mut value = left.clone();
        value.taint.join(&right.taint);
        value.converted |= right.converted;
        value.literal &= right.literal;
        value.number = match (&left.number, &right.number) {
            (Some(left), Some(right)) => Some(add(left, right)),
            _ => None,
        };
        value.pointer = match (&left.pointer, &right.pointer, &right.number) {
            (Some(pointer), None, Some(number)) => {
                Some(Pointer { base: pointer.base.clone(), offset: add(&pointer.offset, number) })
            }
            (Some(pointer), None, None) => Some(pointer.clone()),
            (None, Some(pointer), _) if !negative => {
                let offset = left.number.as_ref().map(|number| pointer.offset.plus(number));
                offset.map(|offset| Pointer { base: pointer.base.clone(), offset })
            }
            (Some(one), Some(other), _) if negative && one.base == other.base => {
                value.number = Some(one.offset.minus(&other.offset));
                None
            }
            _ => None,
        };
        value
    }

    fn binary(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let (Some(left), Some(right)) = (node.child_by_field_name("left"), node.child_by_field_name("right"))
        else {
            return Ok(Value::default());
        };
        let operator = self.field_text(node, "operator");
        let first = self.eval(left, state)?;
        if matches!(operator, "&&" | "||") {
            // The second is evaluated only after the first came out so.
            let mut reached = state.clone();
            self.refine(left, operator == "&&", &mut reached)?;
            self.eval(right, &mut reached)?;
            // What the second assigns may have been assigned.
            let (facts, cleared) = (state.facts.meet(&reached.facts), state.cleared.clone());
            *state = State { facts, cleared, ..std::mem::take(state).join(reached) };
            return Ok(Value::default());
        }
        let second = self.eval(right, state)?;
        if matches!(operator, "+" | "-" | "*" | "/" | "%" | "<<") {
            self.used(&first, node, state);
            self.used(&second, node, state);
        }
        if matches!(operator, "/" | "%") && second.converted && state.left(&second).has(Dangers::UNCHECKED) {
            self.report.found(
                20,
                "c/unchecked-divisor",
                line(node),
                "an untrusted number is a divisor although it may be zero",
            );
        }
        let constants = (
            first.number.as_ref().and_then(Linear::as_constant),
            second.number.as_ref().and_then(Linear::as_constant),
        );
        let mut mixed = Value { number: None, pointer: None, ..first.clone().or(&second) };
        mixed.number = match (operator, constants) {
            ("+" | "-", _) => return Ok(self.sum(&first, &second, operator == "-")),
            ("*", (_, Some(factor))) => first.number.as_ref().map(|number| number.times(factor)),
            ("*", (Some(factor), _)) => second.number.as_ref().map(|number| number.times(factor)),
            ("/", (Some(one), Some(other))) if other != 0 => one.checked_div(other).map(Linear::constant),
            ("/", (_, Some(by))) if by > 1 => Some(self.share(node, first.number.as_ref(), by, state)),
            ("<<", (Some(one), Some(other))) if (0..32).contains(&other) => {
                one.checked_mul(1 << other).map(Linear::constant)
            }
            ("%", _) => {
                let number = self.fresh(node, state);
                if let Some(modulus) = &second.number {
                    state.facts.learn(modulus.add(-1).minus(&number));
                }
                mixed.taint = mixed.taint.without(Dangers::HIGH);
                Some(number)
            }
            ("&", (_, Some(mask))) => {
                let number = self.fresh(node, state);
                state.facts.learn(Linear::constant(mask).minus(&number));
                Some(number)
            }
            ("==" | "!=" | "<" | ">" | "<=" | ">=", _) => return Ok(Value::default()),
            _ => Some(Linear::symbol(self.symbol(self.text(node)))),
        };
        Ok(mixed)
    }

    /// `whole / by`: not negative and no more than the whole, if that is not negative.
    fn share(&self, node: Node<'t>, whole: Option<&Linear>, by: i64, state: &mut State) -> Linear {
        let symbol = self.symbol(self.text(node));
        let share = Linear::symbol(symbol.clone());
        if let Some(whole) = whole.filter(|whole| state.facts.proves(whole)) {
            state.facts.learn_natural(&symbol);
            state.facts.learn(whole.minus(&share));
            state.facts.learn(whole.minus(&share.times(by)));
        }
        share
    }

    /// A number of which only what is learned here is known; never negative.
    pub(super) fn fresh(&self, node: Node<'t>, state: &mut State) -> Linear {
        let symbol = format!("{}:{}", self.symbol("?"), node.start_byte());
        state.facts.forget(&symbol);
        state.facts.learn_natural(&symbol);
        Linear::symbol(symbol)
    }

    fn conditional(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let (Some(test), Some(then), Some(other)) = (
            node.child_by_field_name("condition"),
            node.child_by_field_name("consequence"),
            node.child_by_field_name("alternative"),
        ) else {
            return Ok(Value::default());
        };
        self.eval(test, state)?;
        let (mut yes, mut no) = (state.clone(), state.clone());
        self.refine(test, true, &mut yes)?;
        self.refine(test, false, &mut no)?;
        let (then, other) = (self.eval(then, &mut yes)?, self.eval(other, &mut no)?);
        let mut value = then.clone().or(&other);
        value.taint = yes.cleared_of(&then);
        value.taint.join(&no.cleared_of(&other));
        if let (Some(one), Some(two)) = (&then.number, &other.number) {
            // At most whatever both are at most.
            let number = self.fresh(node, state);
            for bound in [one, two] {
                if yes.facts.proves(&bound.minus(one)) && no.facts.proves(&bound.minus(two)) {
                    state.facts.learn(bound.minus(&number));
                }
            }
            value.number = Some(number);
        }
        Ok(value)
    }
}

impl State {
    /// The taint of a value without what checks ruled out.
    pub(super) fn cleared_of(&self, value: &Value) -> Taint {
        let taint = self.content(value);
        self.cleared.applied(&taint)
    }
}

/// The same for the same text, wherever it stands.
pub(super) fn text_origin(text: &str) -> u64 {
    let hash = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    hash | 1 << 63
}

/// Text without the escapes of C, as far as they matter for its length and its signs.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}
