//! What is known of a Python value.

use std::collections::BTreeMap;

use tree_sitter::Node;

use crate::code::taint::{Cleared, Dangers, Taint};

/// Literal text kept of a value, in bytes: enough to see markup or a query in it.
const TEXT: usize = 4096;

/// An abstract value.
#[derive(Clone, Debug, Default)]
pub(super) struct Value<'t> {
    pub(super) taint: Taint,
    /// The literal parts of its text.
    pub(super) text: String,
    /// Literals alone made it.
    pub(super) literal: bool,
    /// The dotted name that it stands for, such as `os.system`; `X()` is a result of `X`.
    pub(super) path: Option<String>,
    /// A path without `..` and links.
    pub(super) resolved: bool,
    /// A number made from text.
    pub(super) numeric: bool,
    /// The elements of a list, tuple or set as far as known.
    pub(super) items: Vec<Value<'t>>,
    /// The entries of a dictionary with literal keys.
    pub(super) fields: BTreeMap<String, Value<'t>>,
    /// The test whose outcome it is.
    pub(super) test: Option<Node<'t>>,
}

impl Value<'_> {
    pub(super) fn literal(text: impl Into<String>) -> Self {
        Self { text: text.into(), literal: true, ..Self::default() }
    }

    pub(super) fn named(path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    pub(super) fn tainted(taint: Taint) -> Self {
        Self { taint, ..Self::default() }
    }

    pub(super) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// Both values one after the other.
    pub(super) fn concat(mut self, right: &Self) -> Self {
        let mut right_taint = right.taint.clone();
        if !(self.text.is_empty() && !self.taint.is_empty() || self.is_blank()) {
            right_taint = right_taint.without(Dangers::PATH_ABS);
        }
        if self.literal && names_host(&self.text) {
            right_taint = right_taint.without(Dangers::URL);
        }
        self.taint.join(&right_taint);
        self.append_text(&right.text);
        self.literal &= right.literal;
        self.forget_kind();
        self
    }

    /// One of the two values.
    pub(super) fn or(mut self, other: &Self) -> Self {
        self.taint.join(&other.taint);
        if self.text != other.text {
            self.append_text(&other.text);
        }
        self.literal &= other.literal;
        self.resolved &= other.resolved;
        self.numeric |= other.numeric;
        if self.path != other.path {
            self.path = self.path.or_else(|| other.path.clone());
        }
        if self.items.len() == other.items.len() {
            self.items =
                self.items.into_iter().zip(&other.items).map(|(mine, theirs)| mine.or(theirs)).collect();
        } else {
            self.items.clear();
        }
        self.fields.retain(|key, _| other.fields.contains_key(key));
        for (key, mine) in &mut self.fields {
            *mine = std::mem::take(mine).or(&other.fields[key]);
        }
        if self.test != other.test {
            self.test = None;
        }
        self
    }

    /// The value after something was put into it.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.taint.join(&other.taint);
        self.append_text(&other.text);
        self.literal &= other.literal;
        self.items.push(Value { items: Vec::new(), fields: BTreeMap::new(), ..other.clone() });
    }

    pub(super) fn without(mut self, dangers: Dangers) -> Self {
        self.taint = self.taint.without(dangers);
        self
    }

    pub(super) fn append_text(&mut self, text: &str) {
        let room = TEXT.saturating_sub(self.text.len());
        self.text.extend(text.chars().take(room));
    }

    /// It is known to be nothing at all.
    fn is_blank(&self) -> bool {
        self.literal && self.text.is_empty()
    }

    pub(super) fn forget_kind(&mut self) {
        self.path = None;
        self.resolved = false;
        self.items.clear();
        self.fields.clear();
        self.test = None;
    }
}

/// What follows cannot change where the address leads: `/users/`, `https://example.com/`.
fn names_host(text: &str) -> bool {
    match text.split_once("://") {
        Some((_, rest)) => {
            rest.split_once('/').is_some_and(|(host, _)| !host.is_empty() && !host.contains(['{', '%', '$']))
        }
        None => text.starts_with('/') && text[1..].starts_with(char::is_alphanumeric),
    }
}

/// Variables and checks at one point of the program.
#[derive(Clone, Debug, Default)]
pub(super) struct State<'t> {
    pub(super) vars: BTreeMap<String, Value<'t>>,
    pub(super) cleared: Cleared,
    /// Control cannot get here.
    pub(super) dead: bool,
}

impl State<'_> {
    /// What holds where two ways meet.
    pub(super) fn join(mut self, mut other: Self) -> Self {
        if self.dead {
            return other;
        }
        if other.dead {
            return self;
        }
        // What one way ruled out holds for the values of that way, also if another one brings others.
        if self.cleared != other.cleared {
            for state in [&mut self, &mut other] {
                for value in state.vars.values_mut() {
                    value.taint = state.cleared.applied(&value.taint);
                }
            }
        }
        let mut vars = self.vars;
        for (name, value) in other.vars {
            let joined = match vars.remove(&name) {
                Some(mine) => mine.or(&value),
                None => value,
            };
            vars.insert(name, joined);
        }
        Self { vars, cleared: self.cleared.meet(&other.cleared), dead: false }
    }

    pub(super) fn left(&self, value: &Value<'_>) -> Dangers {
        self.cleared.left(&value.taint)
    }
}
