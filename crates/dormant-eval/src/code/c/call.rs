//! Calls: what they write, where data comes from, sinks, and functions of the file.

use tree_sitter::Node;

use super::buffer::length_symbol;
use super::format;
use super::linear::Linear;
use super::value::{Buffer, Pointer, State, Value, append};
use super::{INLINE, Walk, Walker, children, is_markup, line};
use crate::code::taint::{Dangers, Taint};

/// The ways out of a function that was followed.
pub(super) type Returns<'t> = Vec<(State, Option<Node<'t>>, Value)>;

impl<'t> Walker<'t> {
    pub(super) fn call(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let name = self.field_text(node, "function").to_owned();
        if let Some(callee) =
            node.child_by_field_name("function").filter(|callee| callee.kind() != "identifier")
        {
            self.eval(callee, state)?;
        }
        if let Some(function) = self.functions.get(&name).copied() {
            if self.escapes_markup(function) {
                self.report.evidence.insert(79);
                return self.escaped(node, Dangers::TEXT, state);
            }
            if let Some((returns, after)) = self.inline(node, function, state)? {
                let vars = std::mem::take(&mut state.vars);
                *state = State { vars, ..after };
                let value =
                    returns.into_iter().map(|(_, _, value)| value).reduce(|all, value| all.or(&value));
                return Ok(value.unwrap_or_default());
            }
        }
        let mut arguments = Vec::new();
        let nodes: Vec<Node<'t>> = node
            .child_by_field_name("arguments")
            .into_iter()
            .flat_map(children)
            .filter(|it| it.kind() != "comment")
            .collect();
        for &argument in &nodes {
            let value = self.eval(argument, state)?;
            self.used(&value, node, state);
            arguments.push(value);
        }
        self.check_sinks(node, &name, &arguments, state);
        if self.rules.escapers.is_match(&name) && !self.sanitises(&name) {
            return self.escaped(node, Dangers::TEXT, state);
        }
        Ok(self.library(node, &name, &arguments, state))
    }

    fn sanitises(&self, name: &str) -> bool {
        self.rules.sanitisers.iter().flat_map(|it| &it.calls).any(|call| call.split('@').next() == Some(name))
    }

    /// A function of the file that writes `&lt;` for `<`.
    fn escapes_markup(&self, function: Node<'t>) -> bool {
        self.text(function).contains("&lt;") && !self.text(function).contains("printf(\"<")
    }

    /// What goes in comes out harmless, returned or in an argument.
    fn escaped(&mut self, node: Node<'t>, dangers: Dangers, state: &mut State) -> Walk<Value> {
        let mut arguments = Vec::new();
        for argument in node.child_by_field_name("arguments").into_iter().flat_map(children) {
            arguments.push(self.eval(argument, state)?);
        }
        let taint = arguments.iter().fold(Taint::default(), |mut all, value| {
            all.join(&state.content(value));
            all
        });
        let taint = taint.without(dangers);
        for value in &arguments {
            let empty = state.content(value).is_empty();
            if let Some(buffer) = state.buffer_mut(value).filter(|buffer| empty || buffer.array) {
                buffer.taint = taint.clone();
            }
        }
        Ok(self.made(node, Buffer { taint, element: 1, ..Buffer::default() }, state))
    }

    /// A pointer to memory of its own.
    fn made(&self, node: Node<'t>, buffer: Buffer, state: &mut State) -> Value {
        let base = format!("{}:{}", self.symbol("new"), node.start_byte());
        state.facts.forget(&length_symbol(&base));
        state.buffers.insert(base.clone(), buffer);
        Value { pointer: Some(Pointer::start(base)), ..Value::default() }
    }

    fn check_sinks(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &State) {
        let rules = self.rules;
        for secure in rules.secure.iter().filter(|secure| secure.calls.iter().any(|call| call == name)) {
            self.report.evidence.insert(secure.cwe);
        }
        for sink in rules.sinks.iter().filter(|sink| sink.calls.iter().any(|call| call == name)) {
            if sink.strict {
                self.report.found_strictly(sink.cwe, &sink.rule, line(node), &sink.message);
                continue;
            }
            let Some(danger) = sink.danger else {
                self.report.found(sink.cwe, &sink.rule, line(node), &sink.message);
                continue;
            };
            self.report.evidence.insert(sink.cwe);
            let exposed = if sink.when.is_some() {
                self.shell_program(node, arguments, state)
                    .is_some_and(|program| state.left(&program).has(danger.into()))
            } else {
                sink.args.iter().filter_map(|&place| arguments.get(place as usize)).any(|value| {
                    let left = state.left(value).has(danger.into());
                    left && (danger != crate::code::taint::Danger::Code || !value.literal)
                })
            };
            if exposed {
                self.report.found(sink.cwe, &sink.rule, line(node), &sink.message);
            }
        }
    }

    /// The text after `-c`, among the arguments or in an argument vector.
    fn shell_program(&mut self, node: Node<'t>, arguments: &[Value], state: &State) -> Option<Value> {
        if let Some(at) = arguments.iter().position(|value| value.literal && value.text == "-c") {
            return arguments.get(at + 1).cloned();
        }
        let vector = arguments.iter().find(|value| state.text(value).contains("-c") && !value.literal)?;
        let shell = self.text(node).contains("sh\"")
            || ["/bin/sh", "bash", "sh"].iter().any(|shell| state.text(vector).starts_with(shell));
        shell.then(|| vector.clone())
    }

    /// What is known of functions of the library.
    fn library(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) -> Value {
        let argument = |i: usize| arguments.get(i).cloned().unwrap_or_default();
        let number = |i: usize| argument(i).number;
        if let Some(value) = self.input(node, name, arguments, state) {
            return value;
        }
        match name.rsplit('_').next().filter(|_| name.starts_with("__builtin_")).unwrap_or(name) {
            "strlen" | "wcslen" | "strnlen" => {
                let length = self.length(&argument(0), state);
                let mut value = Value {
                    taint: state.content(&argument(0)).without(Dangers::TEXT),
                    number: length,
                    ..Value::default()
                };
                if let (true, Some(most)) = (name == "strnlen", number(1)) {
                    let fresh = self.fresh(node, state);
                    state.facts.learn(most.minus(&fresh));
                    if let Some(length) = &value.number {
                        state.facts.learn(length.minus(&fresh));
                    }
                    value.number = Some(fresh);
                }
                value
            }
            "strcspn" | "strspn" => {
                let fresh = self.fresh(node, state);
                if let Some(length) = self.length(&argument(0), state) {
                    state.facts.learn(length.minus(&fresh));
                }
                Value::number(fresh)
            }
            "min" | "MIN" | "umin" => {
                let fresh = self.fresh(node, state);
                for most in [number(0), number(1)].into_iter().flatten() {
                    state.facts.learn(most.minus(&fresh));
                }
                Value { taint: argument(0).taint.without(Dangers::HIGH), ..Value::number(fresh) }
            }
            "strcpy" | "stpcpy" | "lstrcpy" | "wcscpy" => {
                self.copy_text(node, &argument(0), &argument(1), false, state)
            }
            "strcat" | "lstrcat" | "wcscat" => self.copy_text(node, &argument(0), &argument(1), true, state),
            "strncpy" | "strlcpy" | "stpncpy" | "strcpy_s" | "g_strlcpy" => {
                let (from, most) = if name == "strcpy_s" { (2, 1) } else { (1, 2) };
                self.copy_bytes(
                    node,
                    &argument(0),
                    &argument(from),
                    number(most).as_ref(),
                    name != "strncpy" && name != "stpncpy",
                    state,
                )
            }
            "strncat" => {
                let old = self.length(&argument(0), state);
                let most = number(2);
                let bytes = old.zip(most).map(|(old, most)| old.plus(&most).add(1));
                self.fits(node, &argument(0), bytes.as_ref(), false, state);
                self.absorb(node, &argument(0), &argument(1), number(2), state);
                argument(0)
            }
            "strlcat" | "strcat_s" => {
                let (from, most) = if name == "strcat_s" { (2, 1) } else { (1, 2) };
                self.fits(node, &argument(0), number(most).as_ref(), false, state);
                self.absorb(node, &argument(0), &argument(from), None, state);
                argument(0)
            }
            "memcpy" | "memmove" | "mempcpy" | "bcopy" => {
                self.copy_bytes(node, &argument(0), &argument(1), number(2).as_ref(), false, state)
            }
            "memset" => {
                self.fits(node, &argument(0), number(2).as_ref(), false, state);
                argument(0)
            }
            "sprintf" | "vsprintf" | "swprintf" => self.print_to(
                node,
                &argument(0),
                &argument(1),
                arguments.get(2..).unwrap_or_default(),
                None,
                name,
                state,
            ),
            "snprintf" | "vsnprintf" | "sprintf_s" => self.print_to(
                node,
                &argument(0),
                &argument(2),
                arguments.get(3..).unwrap_or_default(),
                Some(number(1)),
                name,
                state,
            ),
            "asprintf" | "vasprintf" | "g_strdup_printf" | "sqlite3_mprintf" | "mysql_format" => {
                self.print_new(node, name, arguments, state)
            }
            "printf" | "vprintf" | "wprintf" | "FCGI_printf" | "cgi_printf" => {
                self.print_out(node, arguments, state);
                Value::default()
            }
            "fprintf"
            | "dprintf"
            | "evbuffer_add_printf"
            | "FCGX_FPrintF"
            | "ap_rprintf"
            | "mg_printf"
            | "mg_http_reply"
            | "http_printf" => {
                if !self.text(node).contains("stderr") {
                    self.print_out(node, arguments.get(1..).unwrap_or_default(), state);
                }
                Value::default()
            }
            "puts" | "fputs" | "FCGX_PutS" | "ap_rputs" | "write" | "send" | "fwrite" | "evbuffer_add" => {
                if !self.text(node).contains("stderr") {
                    let text = argument(usize::from(matches!(name, "write" | "send" | "evbuffer_add")));
                    self.page(node, &state.text(&text), &state.cleared_of(&text), state);
                }
                Value::default()
            }
            "malloc" | "alloca" | "calloc" | "realloc" | "xmalloc" | "g_malloc" | "reallocarray"
            | "kmalloc" | "xcalloc" => self.allocate(node, name, arguments, state),
            "strdup" | "strndup" | "xstrdup" | "g_strdup" => {
                let taint = state.content(&argument(0));
                let text = state.text(&argument(0));
                let length = match (name, number(1)) {
                    ("strndup", Some(most)) => Some(most),
                    _ => self.length(&argument(0), state),
                };
                let value = self.made(
                    node,
                    Buffer {
                        capacity: length.clone().map(|it| it.add(1)),
                        element: 1,
                        taint,
                        text,
                        ..Buffer::default()
                    },
                    state,
                );
                if let (Some(length), Some(pointer)) = (length, &value.pointer) {
                    let symbol = length_symbol(&pointer.base);
                    state.facts.learn_natural(&symbol);
                    state.facts.learn(length.minus(&Linear::symbol(symbol)));
                }
                value
            }
            "realpath" | "canonicalize_file_name" => {
                let buffer = Buffer {
                    taint: state.content(&argument(0)),
                    resolved: true,
                    element: 1,
                    ..Buffer::default()
                };
                let out = argument(1);
                if let Some(own) = state.buffer_mut(&out) {
                    own.taint.clone_from(&buffer.taint);
                    own.resolved = true;
                    return out;
                }
                self.made(node, buffer, state)
            }
            "strchr" | "strrchr" | "strstr" | "strtok" | "strtok_r" | "strsep" | "strpbrk" | "memchr" => {
                let whole = if argument(0).literal { Value::default() } else { argument(0) };
                if name == "strrchr" && argument(1).text == "/" {
                    // What follows the last separator.
                    let taint = state.content(&whole).without(Dangers::PATH);
                    return self.made(node, Buffer { taint, element: 1, ..Buffer::default() }, state);
                }
                let taint = state.content(&whole);
                let inside = Buffer { taint, element: 1, ..Buffer::default() };
                self.made(node, inside, state)
            }
            _ => self.other(node, name, arguments, state),
        }
    }

    fn other(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) -> Value {
        let mut taint = Taint::default();
        if !self.rules.neutral.iter().any(|neutral| neutral == name) {
            for value in arguments {
                taint.join(&state.content(value));
            }
        }
        for sanitiser in &self.rules.sanitisers {
            for call in &sanitiser.calls {
                let (own, place) = call
                    .split_once('@')
                    .map_or((call.as_str(), None), |(own, place)| (own, place.parse::<usize>().ok()));
                if own != name {
                    continue;
                }
                taint = taint.without(sanitiser.dangers());
                self.report.evidence.insert(if sanitiser.dangers().has(Dangers::SQL) { 89 } else { 22 });
                if let Some(buffer) =
                    place.and_then(|place| arguments.get(place)).and_then(|value| state.buffer_mut(value))
                {
                    buffer.taint = taint.clone();
                }
            }
        }
        if self.rules.validators.is_match(name)
            && node.parent().is_some_and(|it| it.kind() == "expression_statement")
        {
            for value in arguments {
                let taint = state.content(value);
                state.cleared.clear(&taint, Dangers::ALL);
            }
        }
        let symbol = format!("{}:{}", self.symbol("call"), node.start_byte());
        state.facts.forget(&symbol);
        let buffer = Buffer { taint: taint.clone(), element: 1, ..Buffer::default() };
        state.buffers.insert(symbol.clone(), buffer);
        Value {
            taint,
            number: Some(Linear::symbol(symbol.clone())),
            pointer: Some(Pointer::start(symbol)),
            ..Value::default()
        }
    }

    /// Functions that read from outside.
    fn input(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) -> Option<Value> {
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
                    self.read_into_variable(variable, origin, state);
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
        let count = Linear::symbol(format!("{}:{}", self.symbol("count"), node.start_byte()));
        if matches!(name, "read" | "recv" | "recvfrom" | "pread" | "SSL_read") {
            state.facts.forget(&format!("{}:{}", self.symbol("count"), node.start_byte()));
            if let Some(most) = arguments.get(2).and_then(|it| it.number.clone()) {
                state.facts.learn(most.minus(&count));
            }
        } else if name == "fread" {
            if let Some(most) = arguments.get(2).and_then(|it| it.number.clone()) {
                state.facts.learn(most.minus(&count));
            }
        }
        Some(Value {
            pointer: arguments.first().and_then(|it| it.pointer.clone()).filter(|_| name == "fgets"),
            ..Value::number(count)
        })
    }

    fn read_into_variable(&mut self, symbol: &str, origin: u64, state: &mut State) {
        let name = symbol.split_once('.').map_or(symbol, |(_, name)| name).to_owned();
        let number = Some(Linear::symbol(symbol));
        state.facts.forget(symbol);
        state
            .vars
            .insert(name, Value { taint: Taint::of(origin), number, converted: true, ..Value::default() });
    }

    fn converted(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) -> Value {
        let mut taint = arguments.first().map(|value| state.content(value)).unwrap_or_default();
        let place = format!("{}:{}", self.symbol("number"), node.start_byte());
        state.facts.forget(&place);
        if name.starts_with("strtou") || name.starts_with("ntoh") {
            state.facts.learn_natural(&place);
        }
        // What was checked of the text says nothing of the number.
        let origin = super::expr::text_origin(self.text(node)) ^ node.start_byte() as u64;
        if !taint.is_empty() {
            taint = Taint::of(origin).without(Dangers::TEXT);
            state.cleared.forget(origin);
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
            "read" | "recv" | "recvfrom" | "pread" | "SSL_read" => {
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
            "scanf" | "fscanf" | "sscanf" => self.scan(node, name, arguments, state),
            _ => {}
        }
    }

    fn scan(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) {
        let place = usize::from(name != "scanf");
        let Some(text) = arguments.get(place).map(|value| value.text.clone()) else { return };
        let (_, conversions) = format::parse(&text, true);
        let targets = arguments.iter().skip(place + 1);
        for (conversion, target) in conversions.iter().filter(|it| !it.ignored).zip(targets) {
            if matches!(conversion.kind, 's' | '[') {
                let bytes = match conversion.width {
                    Some(width) => Some(Linear::constant(width + 1)),
                    None if name == "sscanf" => self.length(&arguments[0], state).map(|length| length.add(1)),
                    None => None,
                };
                self.fits(node, target, bytes.as_ref(), conversion.width.is_none(), state);
                if name == "sscanf" {
                    let taint = state.content(&arguments[0]);
                    if let Some(buffer) = state.buffer_mut(target) {
                        buffer.taint = taint;
                    }
                }
            }
        }
    }

    fn copy_text(
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

    fn copy_bytes(
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
    fn absorb(
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

    fn print_to(
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
        match &room {
            Some(room) => {
                self.fits(node, target, room.as_ref(), false, state);
                length = room.as_ref().map(|room| room.add(-1));
            }
            None => {
                let bytes = length.as_ref().map(|length| length.add(1));
                self.fits(node, target, bytes.as_ref(), true, state);
            }
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

    fn print_new(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) -> Value {
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
        if let (1, Some(target)) = (place, arguments.first().and_then(|it| it.pointer.as_ref())) {
            if let Some((_, variable)) =
                target.base.strip_prefix('&').and_then(|symbol| symbol.split_once('.'))
            {
                let variable = variable.to_owned();
                self.set(&variable, made.clone(), Some(node), state);
            }
        }
        made
    }

    fn print_out(&mut self, node: Node<'t>, arguments: &[Value], state: &mut State) {
        let Some(at) = arguments.iter().position(|value| value.literal && !value.text.is_empty()) else {
            return;
        };
        let (text, taint, _) =
            self.formatted(&arguments[at], arguments.get(at + 1..).unwrap_or_default(), false, state);
        self.page(node, &text, &taint, state);
    }

    /// Text goes into a page.
    fn page(&mut self, node: Node<'t>, text: &str, taint: &Taint, state: &State) {
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

    fn allocate(&mut self, node: Node<'t>, name: &str, arguments: &[Value], state: &mut State) -> Value {
        let number = |i: usize| arguments.get(i).and_then(|value| value.number.clone());
        let bytes = match name {
            "calloc" | "xcalloc" => number(0).zip(number(1)).and_then(|(count, size)| {
                match (count.as_constant(), size.as_constant()) {
                    (_, Some(size)) => Some(count.times(size)),
                    (Some(count), _) => Some(size.times(count)),
                    _ => None,
                }
            }),
            "realloc" => number(1),
            _ => number(0),
        };
        let size = if name == "realloc" { arguments.get(1) } else { arguments.first() };
        if let Some(size) = size.filter(|size| size.converted && !size.taint.is_empty()) {
            self.report.evidence.insert(20);
            if state.left(size).has(Dangers::HIGH) {
                let message = "an untrusted number sets the size of an allocation without an upper bound";
                self.report.found(20, "c/unchecked-size", line(node), message);
            }
        }
        let taint = if name == "realloc" {
            arguments.first().map(|it| state.content(it)).unwrap_or_default()
        } else {
            Taint::default()
        };
        self.made(node, Buffer { capacity: bytes, element: 1, taint, ..Buffer::default() }, state)
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
        let mut arguments = Vec::new();
        for argument in node
            .child_by_field_name("arguments")
            .into_iter()
            .flat_map(children)
            .filter(|it| it.kind() != "comment")
        {
            let value = self.eval(argument, state)?;
            self.used(&value, node, state);
            arguments.push(value);
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
