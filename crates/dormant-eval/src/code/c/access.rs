//! Pointers, elements and fields, and their sizes.

use tree_sitter::Node;

use super::expr::text_origin;
use super::linear::Linear;
use super::value::{Buffer, Pointer, State, Value};
use super::{Walk, Walker};
use crate::code::taint::{Dangers, Taint};

impl<'t> Walker<'t> {
    pub(super) fn pointer(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let Some(argument) = node.child_by_field_name("argument") else { return Ok(Value::default()) };
        if self.text(node).starts_with('&') {
            if argument.kind() == "subscript_expression" {
                let (base, index) = self.element(argument, state)?;
                return Ok(self.sum(&base, &index, false));
            }
            let mut value = self.eval(argument, state)?;
            if value.pointer.is_none()
                || argument.kind() == "identifier" && state.buffer(&value).is_none_or(|buffer| !buffer.array)
            {
                let base = format!("&{}", self.symbol(self.text(argument)));
                state
                    .buffers
                    .entry(base.clone())
                    .or_insert_with(|| Buffer { taint: value.taint.clone(), ..Buffer::default() });
                value.pointer = Some(Pointer::start(base));
            }
            value.text.clear();
            return Ok(value);
        }
        let pointed = self.eval(argument, state)?;
        Ok(Value { taint: state.content(&pointed), of_text: true, ..Value::default() })
    }

    /// The array and the index of `array[index]`.
    pub(super) fn element(&mut self, node: Node<'t>, state: &mut State) -> Walk<(Value, Value)> {
        let base = node.child_by_field_name("argument").map(|it| self.eval(it, state)).transpose()?;
        let index = node.child_by_field_name("index").map(|it| self.eval(it, state)).transpose()?;
        Ok((base.unwrap_or_default(), index.unwrap_or_default()))
    }

    pub(super) fn subscript(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let (base, index) = self.element(node, state)?;
        self.read_element(node, &base, &index, state);
        let name = self.text(node);
        if let Some(value) = state.vars.get(name) {
            return Ok(value.clone());
        }
        let mut value = Value {
            taint: state.content(&base),
            number: Some(Linear::symbol(self.symbol(name))),
            ..Value::default()
        };
        let in_argv = node
            .child_by_field_name("argument")
            .is_some_and(|it| matches!(self.text(it), "argv" | "av" | "args"));
        if in_argv && !value.taint.is_empty() {
            value.taint = Taint::of(text_origin(name));
        }
        if state.buffer(&base).is_some_and(|buffer| buffer.unsigned) {
            state.facts.learn_natural(&self.symbol(name));
        }
        // An element may be a string of its own, such as `argv[1]` or a row of names.
        let symbol = self.symbol(name);
        let known = state.buffer(&base).filter(|buffer| buffer.array && buffer.element > 8);
        let capacity = known.map(|buffer| Linear::constant(buffer.element));
        let is_char = state.buffer(&base).is_some_and(|buffer| buffer.element == 1 && buffer.array);
        if !is_char {
            let buffer = Buffer {
                taint: value.taint.clone(),
                element: 1,
                array: capacity.is_some(),
                capacity,
                ..Buffer::default()
            };
            state.buffers.entry(symbol.clone()).or_insert(buffer);
            // One of a table of literals is at most as long as all of them.
            let table = state.text(&base);
            if !table.is_empty() && value.taint.is_empty() {
                let length = Linear::symbol(super::buffer::length_symbol(&symbol));
                state.facts.learn(Linear::constant(table.len() as i64).minus(&length));
            }
            value.pointer = Some(Pointer::start(symbol));
        }
        value.of_text = is_char || state.buffer(&base).is_some_and(|buffer| buffer.element == 1);
        value.text = state.text(&base);
        Ok(value)
    }

    pub(super) fn field_access(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let name = self.text(node);
        if let Some(value) = state.vars.get(name) {
            return Ok(value.clone());
        }
        let whole = node
            .child_by_field_name("argument")
            .map(|it| self.eval(it, state))
            .transpose()?
            .unwrap_or_default();
        let symbol = self.symbol(name);
        // How large a field may be is a matter of the structure, not of the call.
        let taint = state.content(&whole).without(Dangers::LOW.with(Dangers::HIGH));
        let field = self.field_text(node, "field");
        let array = self.fields.get(field).cloned();
        let is_array = array.is_some();
        let (capacity, element) = array.unwrap_or((None, 1));
        let buffer = Buffer { capacity, element, taint: taint.clone(), array: is_array, ..Buffer::default() };
        state.buffers.entry(symbol.clone()).or_insert(buffer);
        let number = (!is_array).then(|| Linear::symbol(symbol.clone()));
        Ok(Value { taint, number, pointer: Some(Pointer::start(symbol)), ..Value::default() })
    }

    pub(super) fn size_of(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        if let Some(kind) = node.child_by_field_name("type") {
            return Ok(Value::number(Linear::constant(self.size_of_type(self.text(kind)))));
        }
        let Some(value_node) = node.child_by_field_name("value") else { return Ok(Value::default()) };
        let mut value_node = value_node;
        while let Some(inner) =
            value_node.named_child(0).filter(|_| value_node.kind() == "parenthesized_expression")
        {
            value_node = inner;
        }
        if value_node.kind() == "string_literal" {
            return Ok(Value::number(Linear::constant(self.string(value_node).text.len() as i64 + 1)));
        }
        if let Some(array) = value_node
            .child_by_field_name("argument")
            .filter(|_| matches!(value_node.kind(), "subscript_expression" | "pointer_expression"))
        {
            let value = self.eval(array, state)?;
            let element = state.buffer(&value).map_or(1, |buffer| buffer.element.max(1));
            return Ok(Value::number(Linear::constant(element)));
        }
        let value = self.eval(value_node, state)?;
        let array = state.buffer(&value).filter(|buffer| buffer.array);
        let bytes = match array.map(|buffer| (buffer.capacity.clone(), buffer.element)) {
            Some((Some(capacity), element)) => capacity.times(element),
            Some((None, _)) => Linear::symbol(format!("sizeof({})", self.symbol(self.text(value_node)))),
            None if value.pointer.is_some() => Linear::constant(8),
            None => Linear::constant(self.size_of_type(self.text(value_node))),
        };
        Ok(Value::number(bytes))
    }
}
