//! Expressions: what a value is made of.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walk, Walker, children, has_ancestor, line};
use crate::code::rules;
use crate::code::taint::{Dangers, Origin, Taint};

/// Attributes of a request, or of the process, that an attacker sets.
const INPUTS: [&str; 34] = [
    "request.args",
    "request.form",
    "request.values",
    "request.json",
    "request.data",
    "request.files",
    "request.cookies",
    "request.headers",
    "request.GET",
    "request.POST",
    "request.FILES",
    "request.body",
    "request.query",
    "request.query_params",
    "request.path_params",
    "request.match_info",
    "request.query_string",
    "request.path",
    "request.url",
    "request.params",
    "request.forms",
    "request.META",
    "request.COOKIES",
    "request.full_path",
    "request.view_args",
    "request.rel_url",
    "request.json_body",
    "request.matchdict",
    "sys.argv",
    "os.environ",
    "self.path",
    "self.headers",
    "self.rfile",
    "request.stream",
];

const DIVISOR: &str = "an untrusted number is a divisor although it may be zero";

impl<'t> Walker<'t> {
    pub(super) fn eval(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        self.budget.enter()?;
        let value = match node.kind() {
            "identifier" => self.identifier(node, state),
            "string" => self.string(node, state)?,
            "concatenated_string" => self.concatenated(node, state)?,
            "integer" | "float" | "true" | "false" | "none" => Value::literal(self.text(node)),
            "binary_operator" => self.binary(node, state)?,
            "attribute" => self.attribute(node, state)?,
            "subscript" => self.subscript(node, state)?,
            "call" => self.call(node, state)?,
            "conditional_expression" => self.conditional(node, state)?,
            "boolean_operator" => self.boolean(node, state)?,
            "comparison_operator" | "not_operator" => {
                for child in children(node) {
                    self.eval(child, state)?;
                }
                Value { test: Some(node), ..Value::default() }
            }
            "unary_operator" => {
                let argument = node.child_by_field_name("argument");
                argument.map(|it| self.eval(it, state)).transpose()?.unwrap_or_default()
            }
            "list" | "tuple" | "set" | "expression_list" => self.sequence(node, state)?,
            "dictionary" => self.dictionary(node, state)?,
            "list_comprehension"
            | "set_comprehension"
            | "generator_expression"
            | "dictionary_comprehension" => self.comprehension(node, state)?,
            "named_expression" => {
                let value = node.child_by_field_name("value").map(|it| self.eval(it, state)).transpose()?;
                let value = value.unwrap_or_default();
                if let Some(name) = node.child_by_field_name("name") {
                    self.bind(name, value.clone(), state)?;
                }
                value
            }
            "as_pattern" => self.as_pattern(node, state)?,
            "lambda" => self.lambda(node, state)?,
            "await" | "parenthesized_expression" | "list_splat" | "dictionary_splat" | "yield" => {
                let value =
                    node.named_child(0).map(|it| self.eval(it, state)).transpose()?.unwrap_or_default();
                if node.kind() == "yield" {
                    self.returned(node, &value, state)?;
                }
                value
            }
            "pair" | "interpolation" | "slice" => {
                let mut all = Value::default();
                for child in children(node) {
                    all = all.or(&self.eval(child, state)?);
                }
                all
            }
            _ => Value::default(),
        };
        self.budget.leave();
        Ok(value)
    }

    pub(super) fn lookup(&self, name: &str, state: &State<'t>) -> Option<Value<'t>> {
        state.vars.get(name).or_else(|| self.globals.get(name)).cloned()
    }

    fn identifier(&mut self, node: Node<'t>, state: &State<'t>) -> Value<'t> {
        let name = self.text(node);
        if let Some(value) = self.lookup(name, state) {
            return value;
        }
        if let Some(path) = self.imports.get(name) {
            return Value::named(path.clone());
        }
        let mut value = Value::named(name);
        // In a fragment without a function around it, a name that nothing binds is what the fragment is given.
        let given = self.top_level
            && !self.functions.contains_key(name)
            && name.starts_with(char::is_lowercase)
            && !self.rules.trusted.is_match(name)
            && !has_role_of_a_module(node);
        if given {
            value.taint = Taint::of(self.source.find(name).unwrap_or_default() as Origin);
        }
        value
    }

    /// The same for the same expression, wherever it stands.
    pub(super) fn text_origin(&self, text: &str) -> Origin {
        let hash = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        hash | 1 << 63
    }

    /// Another one at each place.
    pub(super) fn place_origin(node: Node<'t>) -> Origin {
        node.start_byte() as Origin | 1 << 62
    }

    fn string(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let mut whole = Value::literal("");
        for part in children(node) {
            match part.kind() {
                "string_content" => whole = whole.concat(&Value::literal(self.text(part))),
                "interpolation" => {
                    let expression = part.child_by_field_name("expression");
                    let mut value =
                        expression.map(|it| self.eval(it, state)).transpose()?.unwrap_or_default();
                    let numeric = self
                        .field_text(part, "format_specifier")
                        .ends_with(['d', 'f', 'x', 'X', 'e', 'g', 'o', 'b']);
                    if numeric {
                        value = value.without(Dangers::TEXT);
                    }
                    value.literal &= value.taint.is_empty();
                    whole = whole.concat(&value);
                }
                _ => {}
            }
        }
        Ok(whole)
    }

    fn concatenated(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let mut whole = Value::literal("");
        for part in children(node) {
            let part = self.eval(part, state)?;
            whole = whole.concat(&part);
        }
        Ok(whole)
    }

    fn binary(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let (Some(left_node), Some(right_node)) =
            (node.child_by_field_name("left"), node.child_by_field_name("right"))
        else {
            return Ok(Value::default());
        };
        let (left, right) = (self.eval(left_node, state)?, self.eval(right_node, state)?);
        self.used(&left, node, state);
        self.used(&right, node, state);
        Ok(match self.field_text(node, "operator") {
            "+" => {
                let items = [left.items.clone(), right.items.clone()].concat();
                let numeric = left.numeric || right.numeric;
                Value { items, numeric, ..left.concat(&right) }
            }
            "/" if left.path() == "pathlib.Path()"
                || right.path() == "pathlib.Path()"
                || !left.text.is_empty() =>
            {
                self.join_paths(&left, &right)
            }
            "/" if self.is_unchecked_number(&right, node, state) => {
                self.report.found(20, "python/unchecked-divisor", line(node), DIVISOR);
                left.or(&right)
            }
            "/" if left.numeric || right.numeric => left.or(&right),
            "/" => self.join_paths(&left, &right),
            "//" | "%" if left.text.is_empty() && self.is_unchecked_number(&right, node, state) => {
                self.report.found(20, "python/unchecked-divisor", line(node), DIVISOR);
                left.or(&right)
            }
            "%" => self.percent(&left, &right, right_node, state),
            "*" => {
                let sized = |one: &Value<'t>, count: &Value<'t>| {
                    (one.literal && !one.text.is_empty() || !one.items.is_empty()) && count.numeric
                };
                let count = if sized(&left, &right) { &right } else { &left };
                let text = [&left, &right]
                    .iter()
                    .any(|it| it.literal && it.text.parse::<f64>().is_err() || !it.items.is_empty());
                if text && count.numeric && state.left(count).has(Dangers::HIGH) {
                    let message =
                        "an untrusted number sets how often something is repeated, without an upper bound";
                    self.report.found(20, "python/unchecked-size", line(node), message);
                }
                let repeated =
                    if left.items.is_empty() && !(left.literal && right.literal) && !left.text.is_empty() {
                        left
                    } else {
                        left.or(&right)
                    };
                Value { test: None, ..repeated }
            }
            _ => Value { test: None, path: None, ..left.or(&right) },
        })
    }

    fn is_unchecked_number(&self, value: &Value<'t>, node: Node<'t>, state: &State<'t>) -> bool {
        value.numeric && state.left(value).has(Dangers::UNCHECKED) && !has_ancestor(node, "try_statement")
    }

    /// `left % right`: formatting, or a remainder.
    pub(super) fn percent(
        &mut self,
        left: &Value<'t>,
        right: &Value<'t>,
        right_node: Node<'t>,
        state: &State<'t>,
    ) -> Value<'t> {
        if left.text.is_empty() {
            return left.clone().or(right).without(Dangers::LOW.with(Dangers::HIGH));
        }
        let escapes = left.path().ends_with("Markup()");
        let arguments = if right_node.kind() == "tuple" { right.items.clone() } else { vec![right.clone()] };
        let conversions: Vec<char> = conversions(&left.text);
        let mut whole = Value { path: None, ..left.clone() };
        for (i, argument) in arguments.iter().enumerate() {
            let mut argument = argument.clone();
            let number = |c: &char| matches!(c, 'd' | 'i' | 'f' | 'x' | 'X' | 'o' | 'u' | 'e' | 'g');
            let numeric = if arguments.len() == conversions.len() {
                conversions.get(i).is_some_and(number)
            } else {
                !conversions.is_empty() && conversions.iter().all(number)
            };
            if numeric {
                argument = argument.without(Dangers::TEXT);
            }
            if escapes {
                argument = argument.without(Dangers::HTML);
            }
            self.used(&argument, right_node, state);
            argument.literal &= argument.taint.is_empty();
            whole = if left.text.starts_with('%') { whole.or(&argument) } else { whole.concat(&argument) };
        }
        whole
    }

    pub(super) fn join_paths(&mut self, left: &Value<'t>, right: &Value<'t>) -> Value<'t> {
        let mut joined = left.clone();
        joined.taint.join(&right.taint);
        joined.append_text(&right.text);
        joined.forget_kind();
        joined.literal &= right.literal;
        joined.path = Some("pathlib.Path()".to_owned());
        joined
    }

    fn attribute(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let whole = self.text(node);
        if let Some(value) = self.lookup(whole, state) {
            return Ok(value);
        }
        let Some(object) = node.child_by_field_name("object") else { return Ok(Value::default()) };
        let name = self.field_text(node, "attribute");
        let object = self.eval(object, state)?;
        if let Some(value) = object.fields.get(name) {
            return Ok(value.clone());
        }
        let path =
            if object.path.is_some() { format!("{}.{name}", object.path()) } else { format!("?.{name}") };
        if INPUTS.iter().any(|input| rules::names(input, &path)) {
            return Ok(Value { path: Some(path), ..Value::tainted(Taint::of(self.text_origin(whole))) });
        }
        if rules::any(&self.rules.neutral, &path) {
            return Ok(Value::named(path));
        }
        let mut value =
            Value { path: Some(path), text: object.text.clone(), ..Value::tainted(object.taint.clone()) };
        let of_path = object.path() == "pathlib.Path()";
        match name {
            "name" | "stem" | "suffix" if of_path => {
                value.path = None;
                value = value.without(Dangers::PATH);
            }
            "parent" | "parents" if of_path => {
                value.path = object.path;
                value.resolved = object.resolved;
            }
            // What the operator knows of a user is not what the user sends.
            "is_authenticated" | "is_staff" | "is_admin" => value.taint = Taint::default(),
            _ => {}
        }
        Ok(value)
    }

    fn subscript(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let Some(container_node) = node.child_by_field_name("value") else { return Ok(Value::default()) };
        let container = self.eval(container_node, state)?;
        let Some(key_node) = node.child_by_field_name("subscript") else { return Ok(container) };
        let key = self.eval(key_node, state)?;
        if INPUTS.iter().any(|input| rules::names(input, container.path())) {
            return Ok(Value::tainted(Taint::of(self.text_origin(self.text(node)))));
        }
        self.used(&key, node, state);
        if let Some(value) = container.fields.get(&key.text).filter(|_| key.literal) {
            return Ok(value.clone());
        }
        if let Some(item) =
            key.text.parse::<usize>().ok().and_then(|i| container.items.get(i)).filter(|_| key.literal)
        {
            return Ok(item.clone());
        }
        if key_node.kind() != "slice" {
            self.index(node, &key, state);
        }
        Ok(Value {
            taint: container.taint,
            text: container.text,
            literal: container.literal,
            numeric: container.numeric,
            path: container.path.map(|path| format!("{path}[]")),
            ..Value::default()
        })
    }

    /// A number is an index.
    pub(super) fn index(&mut self, node: Node<'t>, key: &Value<'t>, state: &State<'t>) {
        self.used(key, node, state);
        if !key.numeric || key.taint.is_empty() || guarded_by_except(node, self) {
            return;
        }
        self.report.evidence.insert(20);
        if state.left(key).has(Dangers::LOW.with(Dangers::HIGH)) {
            let message = "an untrusted number is an index although its range is not checked";
            self.report.found(20, "python/unchecked-index", line(node), message);
        }
    }

    fn conditional(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let (Some(then), Some(test), Some(other)) =
            (node.named_child(0), node.named_child(1), node.named_child(2))
        else {
            return Ok(Value::default());
        };
        self.eval(test, state)?;
        let (mut yes, mut no) = (state.clone(), state.clone());
        self.refine(test, true, &mut yes)?;
        self.refine(test, false, &mut no)?;
        let then = self.eval(then, &mut yes)?;
        let other = self.eval(other, &mut no)?;
        let then = Value { taint: self.remaining(&then, &yes), ..then };
        let other = Value { taint: self.remaining(&other, &no), ..other };
        Ok(then.or(&other))
    }

    /// The taint that checks on this way left.
    pub(super) fn remaining(&self, value: &Value<'t>, state: &State<'t>) -> Taint {
        state.cleared.applied(&value.taint)
    }

    fn boolean(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let (Some(left), Some(right)) = (node.child_by_field_name("left"), node.child_by_field_name("right"))
        else {
            return Ok(Value::default());
        };
        let first = self.eval(left, state)?;
        let mut reached = state.clone();
        let is_and = self.field_text(node, "operator") == "and";
        self.refine(left, is_and, &mut reached)?;
        let second = self.eval(right, &mut reached)?;
        let value = if is_and {
            Value { taint: self.remaining(&second, &reached), ..second }
        } else {
            first.or(&second)
        };
        Ok(Value { test: Some(node), ..value })
    }

    fn sequence(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let mut whole = Value { literal: true, ..Value::default() };
        for child in children(node).filter(|child| child.kind() != "comment") {
            let item = self.eval(child, state)?;
            whole.taint.join(&item.taint);
            whole.append_text(&item.text);
            whole.literal &= item.literal;
            if child.kind() == "list_splat" {
                whole.items.extend(item.items);
            } else {
                whole.items.push(item);
            }
        }
        Ok(whole)
    }

    fn dictionary(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let mut whole = Value { literal: true, ..Value::default() };
        for pair in children(node) {
            let (Some(key), Some(value)) =
                (pair.child_by_field_name("key"), pair.child_by_field_name("value"))
            else {
                let inner = self.eval(pair, state)?;
                whole.taint.join(&inner.taint);
                whole.fields.extend(inner.fields);
                continue;
            };
            let (key, value) = (self.eval(key, state)?, self.eval(value, state)?);
            whole.taint.join(&value.taint);
            whole.append_text(&value.text);
            whole.literal &= value.literal;
            if key.literal {
                whole.fields.insert(key.text, value);
            }
        }
        Ok(whole)
    }

    fn comprehension(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let mut inner = state.clone();
        self.comprehension_clauses(node, &mut inner)?;
        let body = node.child_by_field_name("body");
        let element = body.map(|it| self.eval(it, &mut inner)).transpose()?.unwrap_or_default();
        let taint = self.remaining(&element, &inner);
        Ok(Value { taint, text: element.text.clone(), literal: element.literal, ..Value::default() })
    }

    pub(super) fn comprehension_clauses(&mut self, node: Node<'t>, inner: &mut State<'t>) -> Walk {
        for clause in children(node) {
            match clause.kind() {
                "for_in_clause" => {
                    let iterable = clause.child_by_field_name("right");
                    let element = iterable.map(|it| self.element(it, inner)).transpose()?.unwrap_or_default();
                    if let Some(target) = clause.child_by_field_name("left") {
                        self.bind(target, element, inner)?;
                    }
                }
                "if_clause" => {
                    if let Some(test) = clause.named_child(0) {
                        self.refine(test, true, inner)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What a loop over the value binds.
    pub(super) fn element(&mut self, iterable: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let value = self.eval(iterable, state)?;
        self.used(&value, iterable, state);
        let pairs = value.path().ends_with(".items()") || value.path() == "enumerate()";
        let items = if pairs { vec![Value { items: Vec::new(), ..value.clone() }; 2] } else { Vec::new() };
        let mut element = value.items.iter().fold(Value { items, ..value.clone() }, |all, _| all);
        element.fields.clear();
        element.test = None;
        element.path = if value.path().starts_with("zipfile.") || value.path().starts_with("tarfile.") {
            value.path
        } else {
            None
        };
        Ok(element)
    }

    fn lambda(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
        let mut inner = state.clone();
        for name in node.child_by_field_name("parameters").into_iter().flat_map(children) {
            let taint = Taint::of(name.start_byte() as Origin);
            inner.vars.insert(self.text(name).to_owned(), Value::tainted(taint));
        }
        let body = node.child_by_field_name("body");
        body.map(|body| self.eval(body, &mut inner)).transpose()?;
        Ok(Value::default())
    }
}

/// A name before a dot, or that is called, is more likely a module or a function than data.
fn has_role_of_a_module(node: Node<'_>) -> bool {
    node.parent().is_some_and(|parent| {
        let role = if parent.kind() == "attribute" { "object" } else { "function" };
        matches!(parent.kind(), "attribute" | "call") && parent.child_by_field_name(role) == Some(node)
    })
}

/// A wrong index is caught.
fn guarded_by_except<'t>(node: Node<'t>, walker: &Walker<'t>) -> bool {
    let mut at = Some(node);
    while let Some(inner) = at {
        if inner.kind() == "try_statement" && has_ancestor(node, "try_statement") {
            let caught = children(inner).filter(|child| child.kind() == "except_clause");
            return caught.map(|clause| walker.text(clause)).any(|text| {
                let head = text.split(':').next().unwrap_or_default();
                head.trim() == "except"
                    || ["IndexError", "KeyError", "LookupError", "Exception"]
                        .iter()
                        .any(|kind| head.contains(kind))
            });
        }
        at = inner.parent();
    }
    false
}

/// The conversions of a `%` format in order.
fn conversions(format: &str) -> Vec<char> {
    let mut found = Vec::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        while let Some(&next) = chars.peek() {
            chars.next();
            if next == '(' {
                chars.by_ref().find(|&c| c == ')');
            } else if next.is_ascii_alphabetic() || next == '%' {
                if next != '%' {
                    found.push(next);
                }
                break;
            }
        }
    }
    found
}
