//! Functions that read from outside: what becomes untrusted, and whether it fits.

use tree_sitter::Node;

use super::Walker;
use super::buffer::length_symbol;
use super::format;
use super::linear::Linear;
use super::value::{Buffer, State, Value};
use crate::code::taint::{Dangers, Taint};

impl<'t> Walker<'t> {
    /// Functions that read from outside.
    pub(super) fn input(
        &mut self,
        node: Node<'t>,
        name: &str,
        arguments: &[Value],
        state: &mut State,
    ) -> Option<Value> {
        if name == "sscanf" {
            self.scan(node, name, arguments, state);
            return Some(Value::number(self.count(node, state)));
        }
        let places: Vec<Option<usize>> = self
            .rules
            .sources
            .iter()
            .filter_map(|source| match source.split_once('@') {
                Some((own, place)) if own == name => Some(place.parse().ok()),
                None if source == name => Some(None),
                _ => None,
            })
            .collect();
        if places.is_empty() {
            return None;
        }
        let origin = node.start_byte() as u64 | 1 << 62;
        self.read_bounds(node, name, arguments, state);
        if matches!(
            name,
            "atoi"
                | "atol"
                | "atoll"
                | "strtol"
                | "strtoul"
                | "strtoll"
                | "strtoull"
                | "atof"
                | "strtod"
                | "ntohs"
                | "ntohl"
        ) {
            return Some(self.converted(node, name, arguments, state));
        }
        state.cleared.forget(origin);
        let origin = if matches!(name, "getenv" | "secure_getenv") || name.contains("param") {
            super::expr::text_origin(self.text(node))
        } else {
            origin
        };
        for value in places.iter().flatten().filter_map(|&place| arguments.get(place)) {
            let base = value.pointer.as_ref().map(|pointer| pointer.base.clone());
            if let Some(base) = base {
                if let Some(variable) = base.strip_prefix('&') {
                    self.read_into_variable(variable, Taint::of(origin), state);
                }
                let buffer = state.buffers.entry(base).or_default();
                buffer.taint = Taint::of(origin);
                buffer.resolved = false;
            }
        }
        if places == [None] {
            let buffer = Buffer { taint: Taint::of(origin), element: 1, ..Buffer::default() };
            let made = self.made(node, buffer, state);
            let number = Some(Linear::symbol(format!("{}:{}", self.symbol("read"), node.start_byte())));
            return Some(Value { taint: Taint::of(origin), number, ..made });
        }
        let count = self.count(node, state);
        if matches!(name, "read" | "recv" | "recvfrom" | "pread" | "SSL_read" | "readlink") {
            if let Some(most) = arguments.get(2).and_then(|it| it.number.clone()) {
                state.facts.learn(most.minus(&count));
            }
        } else if name == "fread"
            && let Some(most) = arguments.get(2).and_then(|it| it.number.clone())
        {
            state.facts.learn(most.minus(&count));
        }
        Some(Value {
            pointer: arguments.first().and_then(|it| it.pointer.clone()).filter(|_| name == "fgets"),
            ..Value::number(count)
        })
    }

    /// How much was read.
    fn count(&self, node: Node<'t>, state: &mut State) -> Linear {
        let symbol = format!("{}:{}", self.symbol("count"), node.start_byte());
        state.facts.forget(&symbol);
        Linear::symbol(symbol)
    }

    fn read_into_variable(&mut self, symbol: &str, taint: Taint, state: &mut State) {
        let name = symbol.split_once('.').map_or(symbol, |(_, name)| name).to_owned();
        let number = Some(Linear::symbol(symbol));
        state.facts.forget(symbol);
        state.vars.insert(name, Value { taint, number, converted: true, ..Value::default() });
    }

    fn converted(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) -> Value {
        let of_text = arguments.first().map(|value| state.content(value)).unwrap_or_default();
        let taint = self.taint_of_number(node, &of_text, state);
        let place = format!("{}:{}", self.symbol("number"), node.start_byte());
        state.facts.forget(&place);
        if name.starts_with("strtou") || name.starts_with("ntoh") {
            state.facts.learn_natural(&place);
        }
        Value { taint, number: Some(Linear::symbol(place)), converted: true, ..Value::default() }
    }

    /// The room that reading functions are told.
    fn read_bounds(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) {
        let number = |i: usize| arguments.get(i).and_then(|value| value.number.clone());
        let Some(first) = arguments.first() else { return };
        match name {
            "fgets" | "gets_s" | "fgetws" => {
                let room = number(1);
                self.fits(node, first, room.as_ref(), false, state);
                if let (Some(room), Some(pointer)) = (room, &first.pointer) {
                    let symbol = length_symbol(&pointer.base);
                    state.facts.forget(&symbol);
                    state.facts.learn_natural(&symbol);
                    state.facts.learn(room.add(-1).minus(&Linear::symbol(symbol)));
                }
            }
            "gets" => {
                self.fits(node, first, None, true, state);
            }
            "read" | "recv" | "recvfrom" | "pread" | "SSL_read" | "readlink" => {
                if let Some(target) = arguments.get(1) {
                    self.fits(node, target, number(2).as_ref(), false, state);
                }
            }
            "fread" => {
                let bytes = number(1).zip(number(2)).map(|(size, count)| {
                    match (size.as_constant(), count.as_constant()) {
                        (Some(size), _) => count.times(size),
                        (_, Some(count)) => size.times(count),
                        _ => Linear::symbol(self.symbol(self.text(node))),
                    }
                });
                self.fits(node, first, bytes.as_ref(), false, state);
            }
            "scanf" | "fscanf" => self.scan(node, name, arguments, state),
            _ => {}
        }
    }

    /// `scanf` and its kin: texts have to fit; what `sscanf` reads is as untrusted as the text that it reads from.
    fn scan(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) {
        let place = usize::from(name != "scanf");
        let Some(text) = arguments.get(place).map(|value| value.text.clone()) else { return };
        let source = arguments.first().filter(|_| name == "sscanf");
        let taint = source.map(|source| state.cleared_of(source)).unwrap_or_default();
        let longest = source.and_then(|source| self.length(source, state));
        let (_, conversions) = format::parse(&text, true);
        let targets = arguments.iter().skip(place + 1);
        for (conversion, target) in conversions.iter().filter(|it| !it.ignored).zip(targets) {
            if matches!(conversion.kind, 's' | '[') {
                let length = conversion.width.map(Linear::constant).or_else(|| longest.clone());
                let bytes = length.as_ref().map(|length| length.add(1));
                self.fits(node, target, bytes.as_ref(), conversion.width.is_none(), state);
                self.read_text(target, length, source.map(|_| &taint), state);
            } else if let (Some(_), Some(pointer)) = (source, &target.pointer)
                && let Some(variable) = pointer.base.strip_prefix('&')
            {
                self.read_into_variable(variable, self.taint_of_number(node, &taint, state), state);
            }
        }
    }

    /// A text of at most this length is in the buffer now.
    fn read_text(&self, target: &Value, length: Option<Linear>, taint: Option<&Taint>, state: &mut State) {
        let Some(pointer) = &target.pointer else { return };
        let symbol = length_symbol(&pointer.base);
        state.facts.forget(&symbol);
        state.facts.learn_natural(&symbol);
        if let Some(length) = length.filter(|length| !length.mentions(&symbol)) {
            state.facts.learn(pointer.offset.plus(&length).minus(&Linear::symbol(symbol)));
        }
        if let (Some(buffer), Some(taint)) = (state.buffer_mut(target), taint) {
            buffer.taint = taint.clone();
        }
    }

    /// What was checked of a text says nothing of the number that is made from it.
    fn taint_of_number(&self, node: Node<'t>, of_text: &Taint, state: &mut State) -> Taint {
        if of_text.is_empty() {
            return Taint::default();
        }
        let origin = super::expr::text_origin(self.text(node)) ^ node.start_byte() as u64;
        state.cleared.forget(origin);
        Taint::of(origin).without(Dangers::TEXT)
    }
}
