//! Calls: sinks, sources, sanitisers, functions of the file, and methods of text.

use std::collections::BTreeMap;

use tree_sitter::Node;

use super::sink::{Call, replaced};
use super::value::{State, Value};
use super::{Frame, INLINE, Walk, Walker, ancestor, children, class_of};
use crate::code::markup::is_markup;
use crate::code::pattern;
use crate::code::rules;
use crate::code::taint::{Dangers, Taint};

/// The ways out of a function that was followed: the state, the returned expression and its value.
pub(super) type Returns<'t> = Vec<(State<'t>, Option<Node<'t>>, Value<'t>)>;

impl<'t> Walker<'t> {
    pub(super) fn call(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let Some(callee) = node.child_by_field_name("function") else { return Ok(Value::default()) };
        if let Some(function) = self.function_of(callee)
            && self.lookup(self.text(callee), state).is_none_or(|it| it.path.is_none())
            && let Some((returns, after)) = self.inline(node, function, state)?
        {
            *state =
                State { vars: std::mem::take(&mut state.vars), cleared: after.cleared, dead: after.dead };
            let value = returns.into_iter().map(|(at, _, value)| Value {
                taint: self.remaining(&value, &at),
                test: None,
                ..value
            });
            let value = value.reduce(|all, value| all.or(&value)).unwrap_or_default();
            return Ok(Value { test: Some(node), ..value });
        }
        let call = self.parts(node, callee, state)?;
        for value in call.arguments.iter().chain(call.keywords.iter().map(|(_, value)| value)) {
            self.used(value, node, state);
        }
        if call.method().ends_with("Environment")
            && call.keyword("autoescape").is_some_and(|value| value.text == "False")
        {
            self.report.found(
                79,
                "python/no-autoescape",
                super::line(node),
                "automatic escaping is switched off",
            );
        }
        self.check_sinks(&call, state);
        self.check_output(&call, state);
        let value = self.result(&call, callee, state)?;
        Ok(Value { test: Some(node), ..value })
    }

    /// The function of the file that a call means; of methods of one name that of the same class.
    pub(super) fn function_of(&self, callee: Node<'t>) -> Option<Node<'t>> {
        let key = self.key_of_callee(callee).filter(|key| !self.imports.contains_key(key))?;
        let functions = self.functions.get(&key)?;
        let class = ancestor(callee, "class_definition");
        let own = functions.iter().find(|function| key.starts_with('.') && class_of(**function) == class);
        own.or(functions.last()).copied()
    }

    fn parts(&mut self, node: Node<'t>, callee: Node<'t>, state: &mut State<'t>) -> Walk<Call<'t>> {
        let object = callee.child_by_field_name("object");
        let receiver = object.map(|object| self.eval(object, state)).transpose()?.unwrap_or_default();
        let function = self.eval(callee, state)?;
        let path = match &function.path {
            Some(path) => path.clone(),
            None => format!("?.{}", self.field_text(callee, "attribute")),
        };
        let (mut arguments, mut keywords) = (Vec::new(), Vec::new());
        let list = node.child_by_field_name("arguments");
        let nodes: Vec<Node<'t>> = list
            .into_iter()
            .flat_map(|list| {
                if list.kind() == "generator_expression" { vec![list] } else { children(list).collect() }
            })
            .collect();
        for argument in nodes {
            match argument.kind() {
                "keyword_argument" => {
                    let value =
                        argument.child_by_field_name("value").map(|it| self.eval(it, state)).transpose()?;
                    keywords.push((self.field_text(argument, "name").to_owned(), value.unwrap_or_default()));
                }
                "dictionary_splat" => {
                    let value = self.eval(argument, state)?;
                    keywords.extend(value.fields.clone());
                    keywords.push(("**".to_owned(), value));
                }
                "list_splat" => {
                    let value = self.eval(argument, state)?;
                    if value.items.is_empty() { arguments.push(value) } else { arguments.extend(value.items) }
                }
                "comment" => {}
                _ => arguments.push(self.eval(argument, state)?),
            }
        }
        Ok(Call { node, path, receiver, arguments, keywords })
    }

    /// Text that is printed or written where it may be markup.
    fn check_output(&mut self, call: &Call<'t>, state: &State<'t>) {
        let all = call.all();
        match call.method() {
            "print" | "write" | "send" | "sendall" | "writelines" | "finish" if is_markup(&all.text) => {
                self.sent(call.node, &all, state);
            }
            "write" | "finish"
                if call.path.starts_with("self.")
                    && self.imports.values().any(|path| path.starts_with("tornado")) =>
            {
                self.sent(call.node, &all, state);
            }
            "render" | "render_async" | "generate" => {
                self.rendered(call.node, &call.path, &call.receiver, &all, state);
            }
            "format_html"
                if call.arguments.first().is_some_and(|format| state.left(format).has(Dangers::HTML)) =>
            {
                self.report.found(79, "python/unescaped-html", super::line(call.node), super::html::MESSAGE);
            }
            "render_template_string" => {
                if let Some(text) = call.arguments.first() {
                    let given = call.keywords.iter().fold(Value::default(), |all, (_, value)| all.or(value));
                    self.rendered_text(call.node, text, &given, state);
                }
            }
            _ => {}
        }
    }

    fn result(&mut self, call: &Call<'t>, callee: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let path = call.path.as_str();
        let first = call.arguments.first().cloned().unwrap_or_default();
        let named = |value: Value<'t>| Value { path: Some(format!("{path}()")), ..value };
        if path == "getattr" && call.arguments.get(1).is_some_and(|name| name.literal) {
            return Ok(Value { path: Some(format!("{}.{}", first.path(), call.arguments[1].text)), ..first });
        }
        if path == "dict" {
            let fields: BTreeMap<String, Value<'t>> = call.keywords.iter().cloned().collect();
            return Ok(Value { fields, ..call.all() });
        }
        if rules::any(&self.rules.sources, path) {
            let mut value = self.source(call, state);
            if call.keyword("type").is_some_and(|kind| matches!(kind.path(), "int" | "float")) {
                value = Value { numeric: true, ..value.without(Dangers::TEXT) };
            }
            return Ok(named(value));
        }
        if rules::any(&self.rules.neutral, path) {
            return Ok(named(Value::default()));
        }
        if let Some(value) = self.made(call, &first) {
            return Ok(value);
        }
        let rules = self.rules;
        let mut value = self.carried(call, callee, state)?;
        let mut sanitised = false;
        for sanitiser in rules.sanitisers.iter().filter(|it| rules::any(&it.calls, path)) {
            let dangers = sanitiser.dangers();
            value = value.without(dangers);
            sanitised = true;
            if sanitiser.raises {
                let subject = if path.ends_with(".relative_to") {
                    if call.receiver.resolved { &call.receiver } else { continue }
                } else {
                    &first
                };
                state.cleared.clear(&subject.taint, dangers);
            }
        }
        if matches!(call.method(), "int" | "float" | "Decimal") {
            value.numeric = true;
        }
        if matches!(path, "min" | "max" | "round" | "abs" | "sum") {
            value.numeric = call.arguments.iter().any(|argument| argument.numeric);
            if path == "min" || path == "max" {
                value = value.without(Dangers::UNCHECKED);
                for argument in &call.arguments {
                    state.cleared.clear(&argument.taint, Dangers::UNCHECKED);
                }
            }
        }
        if !sanitised && self.rules.escapers.is_match(call.method()) && !path.starts_with("os.path") {
            value = value.without(Dangers::TEXT);
        }
        if rules.validators.is_match(call.method())
            && callee
                .parent()
                .and_then(|it| it.parent())
                .is_some_and(|it| it.kind() == "expression_statement")
        {
            // It raises, or it would be of no use.
            for argument in &call.arguments {
                state.cleared.clear(&argument.taint, Dangers::ALL);
            }
        }
        Ok(value)
    }

    fn source(&self, call: &Call<'t>, state: &mut State<'t>) -> Value<'t> {
        if call.path.contains("request.") && !call.path.starts_with("urllib") {
            return Value::tainted(Taint::of(self.text_origin(self.text(call.node))));
        }
        let origin = Self::place_origin(call.node);
        state.cleared.forget(origin);
        let stored = call.method().starts_with("fetch");
        let taint = Taint::of(origin);
        // What a database holds was put there by users, but as data.
        Value::tainted(if stored { taint.without(Dangers::ALL.without(Dangers::HTML)) } else { taint })
    }

    /// Things with a memory of how they were made.
    fn made(&self, call: &Call<'t>, first: &Value<'t>) -> Option<Value<'t>> {
        let path = call.path.as_str();
        let on = |name: &str| {
            call.keyword(name)
                .is_some_and(|value| value.text == "True" || value.path().contains("select_autoescape"))
        };
        if path.ends_with("Environment")
            || path.ends_with("SandboxedEnvironment")
            || path == "jinja2.Template"
            || path == "Template" && !self.imports.contains_key("Template")
        {
            let mark = if on("autoescape") { "()auto" } else { "()" };
            return Some(Value {
                path: Some(format!("{path}{mark}")),
                text: first.text.clone(),
                ..Value::default()
            });
        }
        if path.ends_with("YAML") {
            let kind = call.keyword("typ").map_or("rt", |kind| kind.text.as_str());
            let mark = if kind == "unsafe" { "yaml.YAML()unsafe" } else { "yaml.YAML()" };
            return Some(Value::named(mark));
        }
        if path == "select_autoescape" || path.ends_with(".select_autoescape") {
            return Some(Value::named("select_autoescape"));
        }
        if path == "functools.partial" || path == "partial" {
            return Some(Value { path: first.path.clone(), ..Value::default() });
        }
        None
    }

    /// What the result has of what goes in.
    fn carried(&mut self, call: &Call<'t>, callee: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let path = call.path.as_str();
        let first = call.arguments.first().cloned().unwrap_or_default();
        let mut all = call.all();
        let named = Some(format!("{path}()"));
        let receiver = call.receiver.clone();
        Ok(match call.method() {
            "format" | "substitute" | "safe_substitute" if !receiver.text.is_empty() => {
                self.formatted(call, &receiver)
            }
            "join" if path.ends_with("path.join") || path.ends_with("joinpath") => {
                let mut joined =
                    call.arguments.iter().fold(receiver.clone(), |all, value| self.join_paths(&all, value));
                if path.ends_with("path.join") {
                    joined.taint = call.all().taint;
                    joined.path = named;
                }
                joined
            }
            "joinpath" => {
                call.arguments.iter().fold(receiver.clone(), |all, value| self.join_paths(&all, value))
            }
            "Path" | "PurePath" | "PosixPath" => {
                let mut joined =
                    call.arguments.iter().fold(Value { literal: true, ..Value::default() }, |all, value| {
                        self.join_paths(&all, value)
                    });
                joined.path = Some("pathlib.Path()".to_owned());
                joined
            }
            "resolve" | "absolute" | "expanduser" | "with_suffix" if receiver.path() == "pathlib.Path()" => {
                Value { resolved: call.method() == "resolve", ..receiver }
            }
            "with_name" if receiver.path() == "pathlib.Path()" => receiver.or(&first),
            "realpath" | "abspath" | "normpath" => {
                Value { resolved: true, path: named, items: Vec::new(), ..first }
            }
            "str" | "fspath" | "bytes" | "list" | "tuple" | "sorted" | "dict"
                if path == call.method() || path.ends_with("fspath") =>
            {
                Value {
                    path: if first.resolved { first.path.clone() } else { named.filter(|_| false) },
                    ..first
                }
            }
            "sub" if path.ends_with("re.sub") => {
                let subject = call.arguments.get(2).cloned().unwrap_or_default();
                let replacement = call.arguments.get(1).cloned().unwrap_or_default();
                Value { path: None, ..subject.or(&replacement).without(pattern::kept(&first.text)) }
            }
            "sub" if path.ends_with("compile().sub") => {
                let subject = call.arguments.get(1).cloned().unwrap_or_default();
                Value { path: None, ..subject.or(&first).without(pattern::kept(&receiver.text)) }
            }
            "replace" => {
                let new = call.arguments.get(1).map_or("", |new| new.text.as_str());
                let ruled_out = replaced(&first.text, new);
                let mut value = receiver.without(ruled_out);
                let new = call.arguments.get(1).cloned().unwrap_or_default();
                value.append_text(&new.text);
                value.taint.join(&new.taint);
                Value { path: None, ..value }
            }
            "get" | "pop" => {
                // The key chooses; it is not what comes out.
                let default =
                    call.arguments.get(1).or_else(|| call.keyword("default")).cloned().unwrap_or_default();
                let value = Value { path: None, test: None, ..receiver.clone() }.or(&default);
                self.from_elsewhere(call, Value { path: named, ..value })
            }
            "render" | "render_template_string" | "render_template" | "render_async" => {
                Value { path: named, ..all.without(Dangers::HTML) }
            }
            "lstrip" if first.text.contains('/') => receiver.without(Dangers::PATH_ABS),
            "append" | "extend" | "add" | "insert" | "appendleft" | "update" | "put" | "write"
            | "writerow" | "setdefault"
                if callee.kind() == "attribute" =>
            {
                self.put_into(callee, &all, state)
            }
            "open" => {
                let contents = Taint::of(Self::place_origin(call.node))
                    .without(Dangers::ALL.without(Dangers::OBJECT.with(Dangers::CODE)));
                Value { path: named, ..Value::tainted(contents) }
            }
            "execute" | "run" | "Popen" | "check_output" => Value { path: named, ..Value::default() },
            _ => {
                if callee.kind() == "attribute" {
                    all.taint.join(&receiver.taint);
                    all.literal &= receiver.literal;
                    let mut text = receiver.text.clone();
                    std::mem::swap(&mut text, &mut all.text);
                    all.append_text(&text);
                }
                all.literal &= all.taint.is_empty();
                let value =
                    Value { path: named, resolved: receiver.resolved, numeric: receiver.numeric, ..all };
                if callee.kind() == "attribute" && value.taint.is_empty() && !value.literal {
                    self.from_elsewhere(call, value)
                } else {
                    value
                }
            }
        })
    }

    /// What a cache, a queue or a file returns may be anybody's bytes.
    fn from_elsewhere(&self, call: &Call<'t>, mut value: Value<'t>) -> Value<'t> {
        if !value.literal && !call.path.ends_with("dumps") {
            let taint = Taint::of(Self::place_origin(call.node));
            value.taint.join(&taint.without(Dangers::ALL.without(Dangers::OBJECT)));
        }
        value
    }

    fn formatted(&mut self, call: &Call<'t>, receiver: &Value<'t>) -> Value<'t> {
        let from_start = receiver.text.starts_with(['{', '$']);
        let mut whole = Value { path: None, ..receiver.clone() };
        for value in call.arguments.iter().chain(call.keywords.iter().map(|(_, value)| value)) {
            let value = Value { literal: value.literal && value.taint.is_empty(), ..value.clone() };
            whole = if from_start { whole.or(&value) } else { whole.concat(&value) };
        }
        whole.literal &= whole.taint.is_empty();
        whole
    }

    fn put_into(&mut self, callee: Node<'t>, value: &Value<'t>, state: &mut State<'t>) -> Value<'t> {
        let Some(object) = callee.child_by_field_name("object") else { return Value::default() };
        let name = self.text(object).to_owned();
        if let Some(old) = state.vars.get_mut(&name) {
            old.absorb(value);
        }
        Value::default()
    }

    /// Follows a call to a function of the file. `None`: too deep, or the function calls itself.
    pub(super) fn inline(
        &mut self,
        node: Node<'t>,
        function: Node<'t>,
        state: &mut State<'t>,
    ) -> Walk<Option<(Returns<'t>, State<'t>)>> {
        let key = self.key(function);
        if self.frames.len() >= INLINE || self.frames.iter().any(|frame| frame.key == key) {
            return Ok(None);
        }
        self.walked.insert(function.start_byte());
        let Some(callee) = node.child_by_field_name("function") else { return Ok(None) };
        let call = self.parts(node, callee, state)?;
        let mut inner = State { vars: BTreeMap::new(), cleared: state.cleared.clone(), dead: false };
        let nested = super::has_ancestor(function, "function_definition");
        if nested {
            inner.vars.clone_from(&state.vars);
        }
        let method = callee.kind() == "attribute";
        if method {
            let own = state.vars.iter().filter(|(name, _)| name.starts_with("self."));
            inner.vars.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        }
        let mut arguments = call.arguments.iter();
        for (i, parameter) in self.parameters(function).into_iter().enumerate() {
            if method && i == 0 && matches!(parameter.name.as_str(), "self" | "cls") {
                continue;
            }
            let mut value = call.keyword(&parameter.name).or_else(|| arguments.next()).cloned();
            if let (None, Some(default)) = (&value, parameter.default) {
                value = Some(self.eval(default, &mut inner)?);
            }
            inner.vars.insert(parameter.name, value.unwrap_or_default());
        }
        self.frames.push(Frame { key, ..Frame::default() });
        if let Some(body) = function.child_by_field_name("body") {
            self.block(body, &mut inner)?;
        }
        let mut returns = self.frames.pop().map(|frame| frame.returns).unwrap_or_default();
        if !inner.dead {
            returns.push((inner, None, Value::literal("None")));
        }
        let dead = State { dead: true, ..State::default() };
        let after =
            returns.iter().fold(dead, |all, (at, _, _)| all.join(State { dead: false, ..at.clone() }));
        Ok(Some((returns, after)))
    }
}
