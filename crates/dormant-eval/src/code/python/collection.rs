//! Lists, dictionaries, comprehensions and indexes.

use tree_sitter::Node;

use super::expr::INPUTS;
use super::value::{State, Value};
use super::{Walk, Walker, children, has_ancestor, line};
use crate::code::rules;
use crate::code::taint::{Dangers, Taint};

impl<'t> Walker<'t> {
    pub(super) fn subscript(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
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

    pub(super) fn sequence(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
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

    pub(super) fn dictionary(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
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

    pub(super) fn comprehension(&mut self, node: Node<'t>, state: &mut State<'t>) -> Walk<Value<'t>> {
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
