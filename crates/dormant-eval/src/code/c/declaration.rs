//! Declarations: variables, arrays and parameters, and the sizes of types.

use tree_sitter::Node;

use super::buffer::length_symbol;
use super::linear::Linear;
use super::value::{Buffer, Pointer, State, Value};
use super::{Walk, Walker, children, declared_name, first_of, is_unsigned};
use crate::code::taint::Origin;

/// A parameter of a function.
pub(super) struct Parameter<'t> {
    pub(super) name: &'t str,
    pub(super) kind: &'t str,
    pub(super) pointer: bool,
    pub(super) origin: Origin,
}

impl<'t> Walker<'t> {
    pub(super) fn parameters(&self, function: Node<'t>) -> Vec<Parameter<'t>> {
        let list = function.child_by_field_name("declarator").and_then(|it| first_of(it, "parameter_list"));
        let parameter = |node: Node<'t>| {
            let declarator = node.child_by_field_name("declarator")?;
            let name = declared_name(declarator)?;
            Some(Parameter {
                name: self.text(name),
                kind: self.field_text(node, "type"),
                pointer: declarator.kind() != "identifier",
                origin: name.start_byte() as Origin,
            })
        };
        list.into_iter().flat_map(children).filter_map(parameter).collect()
    }

    /// Bytes of a type; eight for what is not known, which is right for pointers.
    pub(super) fn size_of_type(&self, kind: &str) -> i64 {
        let is = |names: &[&str]| kind.split_whitespace().any(|word| names.contains(&word));
        if kind.contains('*') {
            8
        } else if is(&["char", "uint8_t", "int8_t", "bool", "_Bool", "u8", "byte", "BYTE", "void"]) {
            1
        } else if is(&["short", "uint16_t", "int16_t", "u16"]) {
            2
        } else if is(&["long", "double", "size_t", "ssize_t", "int64_t", "uint64_t"]) {
            8
        } else if is(&["int", "float", "unsigned", "uint32_t", "int32_t", "u32", "wchar_t"]) {
            4
        } else {
            8
        }
    }

    pub(super) fn declaration(&mut self, node: Node<'t>, state: &mut State) -> Walk {
        let kind = self.field_text(node, "type");
        let mut cursor = node.walk();
        let declarators: Vec<Node<'t>> = node.children_by_field_name("declarator", &mut cursor).collect();
        for declarator in declarators {
            self.declarator(declarator, kind, state)?;
        }
        // What a call leaves in it, the next one finds.
        if self.frames.len() > 1 && children(node).any(|child| self.text(child) == "static") {
            for name in self.changeable(node) {
                self.forget(name, state);
                state.facts.forget(&length_symbol(&self.symbol(name)));
            }
        }
        Ok(())
    }

    /// The names in a declaration of what is not constant.
    pub(super) fn changeable(&self, declaration: Node<'t>) -> Vec<&'t str> {
        if children(declaration).any(|child| self.text(child) == "const") {
            return Vec::new();
        }
        let mut cursor = declaration.walk();
        let declarators = declaration.children_by_field_name("declarator", &mut cursor);
        declarators.filter_map(|it| declared_name(it)).map(|name| self.text(name)).collect()
    }

    fn declarator(&mut self, node: Node<'t>, kind: &str, state: &mut State) -> Walk {
        let (target, initial) = match node.kind() {
            "init_declarator" => (node.child_by_field_name("declarator"), node.child_by_field_name("value")),
            _ => (Some(node), None),
        };
        let Some(target) = target.filter(|target| target.kind() != "function_declarator") else {
            return Ok(());
        };
        let Some(name) = declared_name(target) else { return Ok(()) };
        let name = self.text(name);
        if target.kind() == "array_declarator" {
            return self.array(target, name, kind, initial, state);
        }
        if is_unsigned(kind) && target.kind() == "identifier" {
            let symbol = self.symbol(name);
            state.facts.learn_natural(&symbol);
        }
        let value = match initial {
            Some(initial) => self.eval(initial, state)?,
            None => Value::default(),
        };
        // Memory gets the type of the pointer that it is first given to.
        let element = self.size_of_type(kind);
        if let Some(buffer) =
            state.buffer_mut(&value).filter(|buffer| buffer.element == 1 && !buffer.array && element > 1)
        {
            buffer.capacity = buffer.capacity.as_ref().and_then(|bytes| bytes.divided(element));
            buffer.element = element;
        }
        self.set(name, value, initial, state);
        Ok(())
    }

    fn array(
        &mut self,
        target: Node<'t>,
        name: &str,
        kind: &str,
        initial: Option<Node<'t>>,
        state: &mut State,
    ) -> Walk {
        let is_pointer =
            target.child_by_field_name("declarator").is_some_and(|it| it.kind() == "pointer_declarator");
        let element = if is_pointer { 8 } else { self.size_of_type(kind) };
        let base = self.symbol(name);
        let mut buffer = Buffer { element, unsigned: is_unsigned(kind), array: true, ..Buffer::default() };
        if let Some(size) = target.child_by_field_name("size") {
            buffer.capacity = match self.constant(self.text(size)) {
                Some(size) => Some(Linear::constant(size)),
                None => self.eval(size, state)?.number,
            };
            // The room of `row[3][64]` is that of all rows.
            if let Some(outer) =
                target.child_by_field_name("declarator").filter(|it| it.kind() == "array_declarator")
            {
                let rows = outer.child_by_field_name("size").and_then(|size| self.constant(self.text(size)));
                if let (Some(_), Some(columns)) =
                    (rows, buffer.capacity.as_ref().and_then(Linear::as_constant))
                {
                    buffer.element = buffer.element.saturating_mul(columns);
                    buffer.capacity = rows.map(Linear::constant);
                }
            }
        }
        if let Some(initial) = initial {
            let value = self.eval(initial, state)?;
            buffer.text.clone_from(&value.text);
            buffer.taint = state.content(&value);
            let count = match initial.kind() {
                "initializer_list" => children(initial).count() as i64,
                _ => value.text.len() as i64 + 1,
            };
            if buffer.capacity.is_none() {
                buffer.capacity = Some(Linear::constant(count));
            }
            if initial.kind() != "initializer_list" || children(initial).count() <= 1 {
                let length = Linear::symbol(format!("strlen({base})"));
                state.facts.learn_equal(&length, &Linear::constant(value.text.len() as i64));
            }
        }
        state.buffers.insert(base.clone(), buffer);
        state.vars.insert(name.to_owned(), Value { pointer: Some(Pointer::start(base)), ..Value::default() });
        Ok(())
    }

    /// A variable, or a field of one, gets a value.
    pub(super) fn set(&mut self, name: &str, value: Value, source: Option<Node<'t>>, state: &mut State) {
        let symbol = self.symbol(name);
        let offset = format!("@{symbol}");
        let mut stored = Value { number: None, pointer: None, ..value.clone() };
        match value.pointer {
            Some(pointer) if pointer.offset.mentions(&offset) => {
                let change = pointer.offset.minus(&Linear::symbol(offset.clone()));
                state.facts.shift(&offset, &change);
                stored.pointer = Some(Pointer { base: pointer.base, offset: Linear::symbol(offset) });
            }
            Some(pointer) => {
                state.facts.forget(&offset);
                state.facts.learn_equal(&Linear::symbol(offset.clone()), &pointer.offset);
                stored.pointer = Some(Pointer { base: pointer.base, offset: Linear::symbol(offset) });
            }
            None => {}
        }
        match value.number {
            Some(number) if number.mentions(&symbol) => {
                let change = number.minus(&Linear::symbol(symbol.clone()));
                if change.mentions(&symbol) {
                    state.facts.forget(&symbol);
                } else {
                    state.facts.shift(&symbol, &change);
                }
            }
            number => {
                state.facts.forget(&symbol);
                if let Some(number) = number {
                    state.facts.learn_equal(&Linear::symbol(symbol.clone()), &number);
                }
            }
        }
        stored.number = Some(Linear::symbol(symbol));
        if source.is_none() && stored.pointer.is_none() {
            stored.literal = false;
        }
        state.vars.insert(name.to_owned(), stored);
    }
}
