//! Whether what is written fits.

use tree_sitter::Node;

use super::linear::Linear;
use super::value::{Pointer, State, Value, append};
use super::{Walk, Walker, line};
use crate::code::taint::Dangers;

impl<'t> Walker<'t> {
    /// The greatest length of a text, without its zero.
    pub(super) fn length(&self, value: &Value, state: &mut State) -> Option<Linear> {
        if value.literal {
            return Some(Linear::constant(value.text.len() as i64));
        }
        let pointer = value.pointer.as_ref()?;
        let symbol = length_symbol(&pointer.base);
        state.facts.learn_natural(&symbol);
        let buffer = state.buffers.get(&pointer.base)?;
        if let Some(capacity) = buffer.capacity.clone().filter(|_| buffer.array) {
            state.facts.learn(capacity.add(-1).minus(&Linear::symbol(symbol.clone())));
        }
        // From a later place on it is shorter.
        Some(Linear::symbol(symbol))
    }

    /// Bytes from where a pointer points to the end of its buffer.
    fn room(&self, value: &Value, state: &State) -> Option<Linear> {
        let pointer = value.pointer.as_ref()?;
        let buffer = state.buffers.get(&pointer.base)?;
        let capacity = buffer.capacity.as_ref()?;
        Some(capacity.minus(&pointer.offset).times(buffer.element.max(1)))
    }

    /// `bytes` are written to `target`. `unbounded`: by a function that does not know the room.
    pub(super) fn fits(
        &mut self,
        node: Node<'t>,
        target: &Value,
        bytes: Option<&Linear>,
        unbounded: bool,
        state: &State,
    ) -> bool {
        let fits = match self.room(target, state) {
            Some(room) => bytes.is_some_and(|bytes| state.facts.proves(&room.minus(bytes))),
            None if state.buffer(target).is_some_and(|buffer| buffer.parameter) => {
                bytes.is_some_and(|bytes| self.fits_parameter(bytes, state))
            }
            None => {
                !unbounded
                    || bytes
                        .is_some_and(|bytes| bytes.as_constant().is_some() || self.is_bounded(bytes, state))
            }
        };
        self.report.evidence.insert(787);
        if !fits {
            let message = "more may be written than the buffer has room for";
            self.report.found(787, "c/buffer-overflow", line(node), message);
            if unbounded {
                let message = "a function that does not know the size of its buffer is used without a check";
                self.report.found(676, "c/unbounded-copy", line(node), message);
            }
        }
        fits
    }

    /// The room of a buffer that the caller made is known from another parameter, if at all.
    fn fits_parameter(&self, bytes: &Linear, state: &State) -> bool {
        let numbers = self.frames.last().map(|frame| frame.numbers.as_slice()).unwrap_or_default();
        let is_room = |name: &str| {
            ["dst", "dest", "out", "buf", "cap", "max", "limit", "room"]
                .iter()
                .any(|part| name.contains(part))
        };
        let own = |symbol: &str| *bytes == Linear::symbol(symbol);
        let other_room = numbers.iter().any(|(symbol, name)| is_room(name) && !own(symbol));
        bytes.as_constant().is_some()
            || numbers.iter().any(|(symbol, name)| {
                let excluded = own(symbol) && other_room && !is_room(name);
                !excluded && state.facts.proves(&Linear::symbol(symbol.clone()).minus(bytes))
            })
            || bytes.symbols().any(|symbol| {
                symbol.contains("->") || symbol.contains('.') && symbol.matches('.').count() > 1
            }) && self.is_bounded(bytes, state)
    }

    fn is_bounded(&self, form: &Linear, state: &State) -> bool {
        form.symbols().all(|symbol| state.facts.bounds(symbol))
    }

    /// `array[index] = value`, `*pointer = value`.
    pub(super) fn write_element(&mut self, left: Node<'t>, value: &Value, state: &mut State) -> Walk {
        let place = if left.kind() == "subscript_expression" {
            let (base, index) = self.element(left, state)?;
            let moved = self.sum(&base, &Value { pointer: None, ..index.clone() }, false);
            self.check_element(left, &moved, &index, value, state);
            moved
        } else {
            let pointer = left.child_by_field_name("argument").map(|it| self.eval(it, state)).transpose()?;
            let pointer = pointer.unwrap_or_default();
            let moving =
                pointer.pointer.as_ref().is_some_and(|pointer| pointer.offset.as_constant().is_none());
            if moving
                && state
                    .buffer(&pointer)
                    .is_some_and(|buffer| buffer.array || buffer.parameter || buffer.capacity.is_some())
            {
                self.check_element(left, &pointer, &Value::default(), value, state);
            }
            pointer
        };
        let taint = state.cleared_of(value);
        let text = value.text.clone();
        if let Some(pointer) = &place.pointer {
            let symbol = length_symbol(&pointer.base);
            let ends = value.number.as_ref().and_then(Linear::as_constant) == Some(0);
            if ends {
                state.facts.learn(pointer.offset.minus(&Linear::symbol(symbol)));
            } else if !within_text(pointer, state) {
                // Inside of a text, a sign takes the place of another one.
                state.facts.forget(&symbol);
            }
        }
        if let Some(buffer) = state.buffer_mut(&place) {
            buffer.taint.join(&taint);
            append(&mut buffer.text, &text);
        }
        if left.kind() == "subscript_expression" {
            state.vars.remove(self.text(left));
        }
        Ok(())
    }

    fn check_element(&mut self, node: Node<'t>, place: &Value, index: &Value, value: &Value, state: &State) {
        let Some(pointer) = &place.pointer else { return };
        let Some(buffer) = state.buffers.get(&pointer.base) else { return };
        let tainted = state.left(index).has(Dangers::HIGH) && !state.content(index).is_empty();
        let inside = match &buffer.capacity {
            Some(capacity) => {
                let below = state.facts.proves(&capacity.add(-1).minus(&pointer.offset));
                let negative = if state.content(index).is_empty() {
                    state.facts.allow_negative(&pointer.offset)
                } else {
                    !has_field(&pointer.offset) && !state.facts.proves(&pointer.offset)
                };
                below && !negative
            }
            None if buffer.parameter => {
                let ends = value.literal && value.text.is_empty();
                ends || pointer.offset.as_constant().is_some()
                    || within_text(pointer, state)
                    || self.fits_parameter(&pointer.offset, state)
                    || self.is_bounded(&pointer.offset, state)
            }
            None => !tainted || self.is_bounded(&pointer.offset, state),
        };
        self.report.evidence.insert(787);
        if !state.content(index).is_empty() {
            self.report.evidence.insert(20);
        }
        if !inside {
            let message = "an element may be written that is outside of the array";
            self.report.found(787, "c/index-out-of-bounds", line(node), message);
            if !state.content(index).is_empty() {
                self.report.found(
                    20,
                    "c/unchecked-index",
                    line(node),
                    "an untrusted number is an index although its range is not checked",
                );
            }
        }
    }

    /// `array[index]` is read.
    pub(super) fn read_element(&mut self, node: Node<'t>, base: &Value, index: &Value, state: &State) {
        let taint = state.content(index);
        if taint.is_empty() || is_written(node) || index.of_text {
            return;
        }
        self.used(index, node, state);
        let moved = self.sum(base, &Value { pointer: None, ..index.clone() }, false);
        let Some(pointer) = &moved.pointer else { return };
        let Some(buffer) = state.buffers.get(&pointer.base) else { return };
        let inside = if within_text(pointer, state) {
            state.facts.proves(&pointer.offset) || !state.cleared.left(&taint).has(Dangers::LOW)
        } else if let Some(capacity) = &buffer.capacity {
            state.facts.proves(&capacity.add(-1).minus(&pointer.offset))
                && (has_field(&pointer.offset) || state.facts.proves(&pointer.offset))
        } else {
            let left = state.cleared.left(&taint);
            let number = index.number.as_ref();
            let natural = number.is_some_and(|number| state.facts.proves(number));
            !left.has(Dangers::HIGH) && (natural || !left.has(Dangers::LOW))
                || number.is_some_and(|number| {
                    self.is_bounded(number, state) && (natural || !left.has(Dangers::LOW))
                })
        };
        if inside {
            self.report.evidence.insert(20);
        } else {
            let message = "an untrusted number is an index although its range is not checked";
            // The room of a buffer of the caller is the caller's to know.
            if buffer.capacity.is_some() || index.converted {
                self.report.found(20, "c/unchecked-index", line(node), message);
            } else {
                self.report.found_if_asked(20, "c/unchecked-index", line(node), message);
            }
        }
    }
}

/// It has a field of a structure, which the program itself keeps right.
fn has_field(form: &Linear) -> bool {
    form.symbols().any(|symbol| symbol.contains("->"))
}

/// Before the end of the text that the buffer holds.
fn within_text(pointer: &Pointer, state: &State) -> bool {
    let length = Linear::symbol(length_symbol(&pointer.base));
    state.facts.proves(&length.add(-1).minus(&pointer.offset))
}

pub(super) fn length_symbol(base: &str) -> String {
    format!("strlen({base})")
}

/// The element is the target of an assignment, or only its address is taken.
fn is_written(node: Node<'_>) -> bool {
    node.parent().is_some_and(|parent| {
        parent.kind() == "assignment_expression" && parent.child_by_field_name("left") == Some(node)
    })
}
