//! Checks by regular expressions.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walk, Walker};
use crate::code::pattern;
use crate::code::taint::Dangers;

impl<'t> Walker<'t> {
    /// An expression matched the subject, or did not.
    pub(super) fn refine_match(
        &mut self,
        callee: Node<'t>,
        method: &str,
        arguments: &[Node<'t>],
        truth: bool,
        state: &mut State<'t>,
    ) -> Walk {
        let object = match callee.child_by_field_name("object") {
            Some(object) => self.eval(object, state)?,
            None => Value::default(),
        };
        let compiled = object.path().ends_with("compile()");
        let (expression, subject) = if compiled {
            (object, self.argument(arguments, 0, state)?)
        } else {
            (self.argument(arguments, 0, state)?, self.argument(arguments, 1, state)?)
        };
        state.cleared.clear(&subject.taint, Dangers::UNCHECKED);
        let whole = method == "fullmatch";
        let from_start = whole || method == "match";
        if truth {
            let dangers = pattern::accepted(&expression.text, from_start, whole);
            if dangers.has(Dangers::UNCHECKED) {
                state.cleared.clear(&subject.taint, dangers);
            } else if !subject.taint.is_empty() {
                self.report.weak_check.get_or_insert(callee.start_position().row + 1);
            }
        } else if let Some(found) = searched(method, &expression.text) {
            state.cleared.clear(&subject.taint, pattern::rejected(found));
        }
        Ok(())
    }
}

/// What a call looks for in all of its subject: `match` looks only at the beginning.
fn searched<'a>(method: &str, expression: &'a str) -> Option<&'a str> {
    match method {
        "search" | "findall" => Some(expression),
        "match" => expression.strip_prefix(".*"),
        _ => None,
    }
}
