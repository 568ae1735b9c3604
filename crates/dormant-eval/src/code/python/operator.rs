//! Operators: sums of text, formats, paths.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walk, Walker, has_ancestor, line};
use crate::code::taint::Dangers;

const DIVISOR: &str = "an untrusted number is a divisor although it may be zero";

impl<'t> Walker<'t> {
    pub(super) fn binary(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let (Some(left_node), Some(right_node)) =
            (node.child_by_field_name("left"), node.child_by_field_name("right"))
        else {
            return Ok(Value::default());
        };
        let (left, right) = (self.eval(left_node, state)?, self.eval(right_node, state)?);
        self.used(&left, node, state);
        self.used(&right, node, state);
        Ok(match self.field_text(node, "operator") {
            "+" if left.path().ends_with("Markup()") => {
                let escaped = right.without(Dangers::HTML);
                Value { path: left.path.clone(), ..left.concat(&escaped) }
            }
            "+" => {
                let items = [left.items.clone(), right.items.clone()].concat();
                let numeric = left.numeric || right.numeric;
                Value { numeric, items, ..left.concat(&right) }
            }
            "/" if left.path() == "pathlib.Path()"
                || right.path() == "pathlib.Path()"
                || !left.text.is_empty() =>
            {
                self.join_paths(&left, &right)
            }
            "/" if self.is_unchecked_number(&right, node, state) => {
                self.report.found(20, "python/unchecked-divisor", line(node), DIVISOR);
                left.or(&right)
            }
            "/" if left.numeric || right.numeric => left.or(&right),
            "/" => self.join_paths(&left, &right),
            "//" | "%" if left.text.is_empty() && self.is_unchecked_number(&right, node, state) => {
                self.report.found(20, "python/unchecked-divisor", line(node), DIVISOR);
                left.or(&right)
            }
            "%" => self.percent(&left, &right, right_node, state),
            "*" => {
                let sized = |one: &Value<'t>, count: &Value<'t>| {
                    (one.literal && !one.text.is_empty() || !one.items.is_empty()) && count.numeric
                };
                let count = if sized(&left, &right) { &right } else { &left };
                let text = [&left, &right]
                    .iter()
                    .any(|it| it.literal && it.text.parse::<f64>().is_err() || !it.items.is_empty());
                if text && count.numeric && state.left(count).has(Dangers::HIGH) {
                    let message =
                        "an untrusted number sets how often something is repeated, without an upper bound";
                    self.report.found(20, "python/unchecked-size", line(node), message);
                }
                let repeated =
                    if left.items.is_empty() && !(left.literal && right.literal) && !left.text.is_empty() {
                        left
                    } else {
                        left.or(&right)
                    };
                Value { test: None, ..repeated }
            }
            _ => Value { test: None, path: None, ..left.or(&right) },
        })
    }

    fn is_unchecked_number(&self, value: &Value<'t>, node: Node<'t>, state: &State<'t>) -> bool {
        value.numeric && state.left(value).has(Dangers::UNCHECKED) && !has_ancestor(node, "try_statement")
    }

    /// `left % right`: formatting, or a remainder.
    pub(super) fn percent(
        &mut self,
        left: &Value<'t>,
        right: &Value<'t>,
        right_node: Node<'t>,
        state: &State<'t>,
    ) -> Value<'t> {
        if left.text.is_empty() {
            return left.clone().or(right).without(Dangers::LOW.with(Dangers::HIGH));
        }
        let escapes = left.path().ends_with("Markup()");
        let arguments = if right_node.kind() == "tuple" { right.items.clone() } else { vec![right.clone()] };
        let conversions: Vec<char> = conversions(&left.text);
        let mut whole = Value { path: None, ..left.clone() };
        for (i, argument) in arguments.iter().enumerate() {
            let mut argument = argument.clone();
            let number = |c: &char| matches!(c, 'd' | 'i' | 'f' | 'x' | 'X' | 'o' | 'u' | 'e' | 'g');
            let numeric = if arguments.len() == conversions.len() {
                conversions.get(i).is_some_and(number)
            } else {
                !conversions.is_empty() && conversions.iter().all(number)
            };
            if numeric {
                argument = argument.without(Dangers::TEXT);
            }
            if escapes {
                argument = argument.without(Dangers::HTML);
            }
            self.used(&argument, right_node, state);
            argument.literal &= argument.taint.is_empty();
            whole = if left.text.starts_with('%') { whole.or(&argument) } else { whole.concat(&argument) };
        }
        whole
    }

    pub(super) fn join_paths(&mut self, left: &Value<'t>, right: &Value<'t>) -> Value<'t> {
        let mut joined = left.clone();
        joined.taint.join(&right.taint);
        joined.append_text(&right.text);
        joined.forget_kind();
        joined.literal &= right.literal;
        joined.path = Some("pathlib.Path()".to_owned());
        joined
    }
}

/// The conversions of a `%` format in order.
fn conversions(format: &str) -> Vec<char> {
    let mut found = Vec::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        while let Some(&next) = chars.peek() {
            chars.next();
            if next == '(' {
                chars.by_ref().find(|&c| c == ')');
            } else if next.is_ascii_alphabetic() || next == '%' {
                if next != '%' {
                    found.push(next);
                }
                break;
            }
        }
    }
    found
}
