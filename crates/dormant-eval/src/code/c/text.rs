//! Functions that copy and print text.

use tree_sitter::Node;

use super::buffer::length_symbol;
use super::format;
use super::linear::Linear;
use super::value::{Buffer, State, Value, append};
use super::{Walker, line};
use crate::code::markup::is_markup;
use crate::code::taint::{Dangers, Taint};

impl<'t> Walker<'t> {
    pub(super) fn copy_text(
        &mut self,
        node: Node<'t>,
        target: &Value,
        source: &Value,
        append_it: bool,
        state: &mut State,
    ) -> Value {
        let length = self.length(source, state);
        let old = if append_it { self.length(target, state) } else { Some(Linear::default()) };
        let new = length.clone().zip(old).map(|(length, old)| length.plus(&old));
        let bytes = new.as_ref().map(|length| length.add(1));
        self.fits(node, target, bytes.as_ref(), true, state);
        if append_it {
            self.absorb(node, target, source, None, state);
        } else {
            self.replace(target, source, length.as_ref(), state);
        }
        target.clone()
    }

    pub(super) fn copy_bytes(
        &mut self,
        node: Node<'t>,
        target: &Value,
        source: &Value,
        bytes: Option<&Linear>,
        ends: bool,
        state: &mut State,
    ) -> Value {
        self.fits(node, target, bytes, false, state);
        let longest = bytes.map(|bytes| if ends { bytes.add(-1) } else { bytes.clone() });
        self.replace(target, source, None, state);
        if let (Some(longest), Some(pointer), true) = (longest, &target.pointer, ends) {
            state.facts.learn(longest.minus(&Linear::symbol(length_symbol(&pointer.base))));
        }
        target.clone()
    }

    /// The buffer has the content of another one.
    fn replace(&mut self, target: &Value, source: &Value, length: Option<&Linear>, state: &mut State) {
        let (taint, text) = (state.cleared_of(source), state.text(source));
        if let Some(pointer) = &target.pointer {
            let symbol = length_symbol(&pointer.base);
            state.facts.forget(&symbol);
            state.facts.learn_natural(&symbol);
            if let Some(length) = length.filter(|length| !length.mentions(&symbol)) {
                state.facts.learn_equal(&Linear::symbol(symbol), &pointer.offset.plus(length));
            }
        }
        let whole = target.pointer.as_ref().is_some_and(|pointer| pointer.offset.as_constant() == Some(0));
        if let Some(buffer) = state.buffer_mut(target) {
            if whole {
                buffer.taint = taint;
                buffer.text = text;
            } else {
                buffer.taint.join(&taint);
                append(&mut buffer.text, &text);
            }
        }
    }

    /// More goes behind what the buffer has.
    pub(super) fn absorb(
        &mut self,
        node: Node<'t>,
        target: &Value,
        source: &Value,
        most: Option<Linear>,
        state: &mut State,
    ) {
        let mut length = self.length(source, state);
        if let Some(most) = most {
            let fresh = self.fresh(node, state);
            for bound in [Some(most), length].into_iter().flatten() {
                state.facts.learn(bound.minus(&fresh));
            }
            length = Some(fresh);
        }
        if let Some(pointer) = &target.pointer {
            let symbol = length_symbol(&pointer.base);
            match length.filter(|length| !length.mentions(&symbol)) {
                Some(length) => state.facts.shift(&symbol, &length),
                None => state.facts.forget(&symbol),
            }
        }
        let after_text = !state.text(target).is_empty();
        let added = state.cleared_of(source);
        let mut taint = added.clone();
        if after_text {
            taint = taint.without(Dangers::PATH_ABS);
        }
        let text = state.text(source);
        if let Some(buffer) = state.buffer_mut(target) {
            buffer.taint.join(&taint);
            append(&mut buffer.text, &text);
        }
        let whole = state.text(target);
        if is_markup(&whole) {
            self.page(node, &whole, &added, state);
        }
    }

    /// What a format makes: its literal text, the taint, and its greatest length.
    fn formatted(
        &mut self,
        format: &Value,
        arguments: &[Value],
        escapes_sql: bool,
        state: &mut State,
    ) -> (String, Taint, Option<Linear>) {
        let text = state.text(format);
        let (literal, conversions) = format::parse(&text, false);
        let mut taint = if format.literal { Taint::default() } else { state.content(format) };
        let mut length = Some(Linear::constant(literal.len() as i64));
        let mut whole = literal;
        let mut values = arguments.iter();
        for conversion in &conversions {
            if conversion.starred {
                values.next();
            }
            let value = values.next().cloned().unwrap_or_default();
            let mut part = state.cleared_of(&value);
            if conversion.is_number() {
                part = part.without(Dangers::TEXT);
                length = length.map(|length| length.add(conversion.longest_number()));
            } else {
                if !conversion.before.is_empty() {
                    part = part.without(Dangers::PATH_ABS);
                }
                if escapes_sql && matches!(conversion.kind, 'q' | 'Q' | 'w') {
                    part = part.without(Dangers::SQL);
                    self.report.evidence.insert(89);
                }
                let most = match conversion.precision {
                    Some(precision) => Some(Linear::constant(precision)),
                    None => self.length(&value, state),
                };
                length = length.zip(most).map(|(length, most)| length.plus(&most));
                append(&mut whole, &state.text(&value));
            }
            taint.join(&part);
        }
        (whole, taint, length.filter(|_| format.literal))
    }

    pub(super) fn print_to(
        &mut self,
        node: Node<'t>,
        target: &Value,
        format: &Value,
        arguments: &[Value],
        room: Option<Option<Linear>>,
        name: &str,
        state: &mut State,
    ) -> Value {
        let (text, taint, length) = self.formatted(format, arguments, false, state);
        let mut length = length.filter(|_| !name.starts_with('v'));
        if let Some(room) = &room {
            self.fits(node, target, room.as_ref(), false, state);
            length = room.as_ref().map(|room| room.add(-1));
        } else {
            let bytes = length.as_ref().map(|length| length.add(1));
            self.fits(node, target, bytes.as_ref(), true, state);
        }
        self.page(node, &text, &taint, state);
        if let Some(pointer) = target.pointer.clone() {
            let symbol = length_symbol(&pointer.base);
            state.facts.forget(&symbol);
            state.facts.learn_natural(&symbol);
            if let Some(length) = length.filter(|length| !length.mentions(&symbol)) {
                state.facts.learn(pointer.offset.plus(&length).minus(&Linear::symbol(symbol)));
            }
            let whole = pointer.offset.as_constant() == Some(0);
            if let Some(buffer) = state.buffers.get_mut(&pointer.base) {
                if whole {
                    buffer.taint = taint;
                    buffer.text = text;
                } else {
                    buffer.taint.join(&taint);
                    append(&mut buffer.text, &text);
                }
                buffer.resolved = false;
            }
        }
        let count = Linear::symbol(format!("{}:{}", self.symbol("printed"), node.start_byte()));
        Value::number(count)
    }

    pub(super) fn print_new(
        &mut self,
        node: Node<'t>,
        name: &str,
        arguments: &[Value],
        state: &mut State,
    ) -> Value {
        let place = usize::from(name.ends_with("asprintf"));
        let Some(format) = arguments.get(place) else { return Value::default() };
        let (text, taint, _) = self.formatted(
            format,
            arguments.get(place + 1..).unwrap_or_default(),
            name.starts_with("sqlite3"),
            state,
        );
        self.page(node, &text, &taint, state);
        let buffer = Buffer { taint, text, element: 1, ..Buffer::default() };
        let made = self.made(node, buffer, state);
        if let (1, Some(target)) = (place, arguments.first().and_then(|it| it.pointer.as_ref()))
            && let Some((_, variable)) =
                target.base.strip_prefix('&').and_then(|symbol| symbol.split_once('.'))
        {
            let variable = variable.to_owned();
            self.set(&variable, made.clone(), Some(node), state);
        }
        made
    }

    pub(super) fn print_out(&mut self, node: Node<'t>, arguments: &[Value], state: &mut State) {
        let Some(at) = arguments.iter().position(|value| value.literal && !value.text.is_empty()) else {
            return;
        };
        let (text, taint, _) =
            self.formatted(&arguments[at], arguments.get(at + 1..).unwrap_or_default(), false, state);
        self.page(node, &text, &taint, state);
    }

    /// Text goes into a page.
    pub(super) fn page(&mut self, node: Node<'t>, text: &str, taint: &Taint, state: &State) {
        if text.contains("&lt;") {
            self.report.evidence.insert(79);
        }
        let outputs = !matches!(
            self.field_text(node, "function"),
            "snprintf" | "sprintf" | "strcat" | "strncat" | "asprintf" | "write" | "send" | "fwrite"
        );
        if !is_markup(text) && !(self.markup && outputs && !taint.is_empty()) {
            return;
        }
        self.report.evidence.insert(79);
        if state.cleared.left(taint).has(Dangers::HTML) {
            self.report.found(
                79,
                "c/unescaped-html",
                line(node),
                "untrusted data is put into HTML without escaping",
            );
        }
    }
}
