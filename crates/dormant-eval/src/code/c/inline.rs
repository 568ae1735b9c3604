//! Calls to functions of the file, and what a call may do to variables.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{INLINE, Walk, Walker};

/// The ways out of a function that was followed.
pub(super) type Returns<'t> = Vec<(State, Option<Node<'t>>, Value)>;

impl<'t> Walker<'t> {
    /// A variable whose address is an argument may have any value afterwards.
    pub(super) fn hand_out(&self, call: Node<'t>, state: &mut State) {
        for argument in self.arguments(call) {
            let variable = argument.child_by_field_name("argument").filter(|_| self.is_address(argument));
            if let Some(variable) = variable {
                self.forget(self.text(variable), state);
            }
        }
    }

    /// An argument of a call. Where a variable is does not use what is in it.
    pub(super) fn passed(&mut self, argument: Node<'t>, call: Node<'t>, state: &mut State) -> Walk<Value> {
        let value = self.eval(argument, state)?;
        if !self.is_address(argument) {
            self.used(&value, call, state);
        }
        Ok(value)
    }

    fn is_address(&self, node: Node<'t>) -> bool {
        node.kind() == "pointer_expression" && self.text(node).starts_with('&')
    }

    /// Follows a call to a function of the file. `None`: too deep, or the function calls itself.
    pub(super) fn inline(
        &mut self,
        node: Node<'t>,
        function: Node<'t>,
        state: &mut State,
    ) -> Walk<Option<(Returns<'t>, State)>> {
        let name = self.field_text(node, "function").to_owned();
        if self.frames.len() > INLINE || self.frames.iter().any(|frame| frame.name == name) {
            return Ok(None);
        }
        self.walked.insert(function.start_byte());
        let mut arguments = Vec::new();
        for argument in self.arguments(node) {
            arguments.push(self.passed(argument, node, state)?);
        }
        let mut inner = State { vars: std::collections::BTreeMap::new(), ..state.clone() };
        self.push_frame(name);
        let parameters = self.parameters(function);
        for (parameter, value) in parameters.iter().zip(arguments) {
            if super::is_unsigned(parameter.kind) && !parameter.pointer {
                let symbol = self.symbol(parameter.name);
                inner.facts.learn_natural(&symbol);
            }
            self.set(parameter.name, value, Some(node), &mut inner);
        }
        if let Some(body) = function.child_by_field_name("body") {
            self.block(body, &mut inner)?;
        }
        let mut returns = self.frames.pop().map(|frame| frame.returns).unwrap_or_default();
        if !inner.dead {
            returns.push((inner, None, Value::default()));
        }
        let after = returns
            .iter()
            .fold(State::dead(), |all, (at, _, _)| all.join(State { dead: false, ..at.clone() }));
        Ok(Some((returns, after)))
    }
}
