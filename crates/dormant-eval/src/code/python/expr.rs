//! Expressions: what a value is made of.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walk, Walker, children};
use crate::code::rules;
use crate::code::taint::{Dangers, Origin, Taint};

/// Attributes of a request, or of the process, that an attacker sets.
pub(super) const INPUTS: [&str; 34] = [
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
            let sanitisers = self.rules.sanitisers.iter().filter(|it| rules::any(&it.calls, &path));
            let harmless = sanitisers.fold(Dangers::NONE, |all, it| all.with(it.dangers()));
            let value = Value::tainted(Taint::of(self.text_origin(whole))).without(harmless);
            return Ok(Value { path: Some(path), ..value });
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
