//! Calls: what they write, where data comes from, sinks, and functions of the file.

use tree_sitter::Node;

use super::buffer::length_symbol;
use super::linear::Linear;
use super::value::{Buffer, Pointer, State, Value};
use super::{Walk, Walker, children, line};
use crate::code::taint::{Dangers, Taint};

impl<'t> Walker<'t> {
    pub(super) fn call(&mut self, node: Node<'t>, state: &mut State) -> Walk<Value> {
        let name = self.field_text(node, "function").to_owned();
        if let Some(callee) =
            node.child_by_field_name("function").filter(|callee| callee.kind() != "identifier")
        {
            self.eval(callee, state)?;
        }
        self.hand_out(node, state);
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
        for argument in self.arguments(node) {
            arguments.push(self.passed(argument, node, state)?);
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
    pub(super) fn made(&self, node: Node<'t>, buffer: Buffer, state: &mut State) -> Value {
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
            let given = danger == crate::code::taint::Danger::Path
                && sink
                    .args
                    .iter()
                    .filter_map(|&place| arguments.get(place as usize))
                    .all(|value| self.is_given(value, state));
            if exposed && given {
                self.report.evidence.remove(&sink.cwe);
                self.report.found_if_asked(sink.cwe, &sink.rule, line(node), &sink.message);
            } else if exposed {
                self.report.found(sink.cwe, &sink.rule, line(node), &sink.message);
            }
        }
    }

    /// The whole path is a parameter or an argument of the program: whether it is harmless is for others to say.
    fn is_given(&self, value: &Value, state: &State) -> bool {
        let base = value.pointer.as_ref().map_or("", |pointer| pointer.base.as_str());
        let parameter = state.buffer(value).is_some_and(|buffer| buffer.parameter && buffer.text.is_empty());
        (parameter && !base.contains("name")) || base.ends_with(']') && base.contains(".argv[")
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
            "strncpy" | "strlcpy" | "stpncpy" | "strcpy_s" | "strncpy_s" | "memcpy_s" | "memmove_s"
            | "g_strlcpy" => {
                let (from, most) = if name.ends_with("_s") { (2, 1) } else { (1, 2) };
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
            "sprintf" | "vsprintf" => self.print_to(
                node,
                &argument(0),
                &argument(1),
                arguments.get(2..).unwrap_or_default(),
                None,
                name,
                state,
            ),
            "snprintf" | "vsnprintf" | "sprintf_s" | "swprintf" => self.print_to(
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
}
