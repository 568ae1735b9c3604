//! What is known of C values, buffers and points of the program.

use std::collections::BTreeMap;

use super::linear::{Facts, Linear};
use crate::code::taint::{Cleared, Dangers, Origin, Taint};

const TEXT: usize = 4096;

/// An abstract value: a number, a pointer, or both while the type is not known.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    pub(super) taint: Taint,
    /// Literal text.
    pub(super) text: String,
    pub(super) literal: bool,
    pub(super) number: Option<Linear>,
    pub(super) pointer: Option<Pointer>,
    /// A sign of a text, or made from one: no number that somebody chose.
    pub(super) of_text: bool,
    /// Made a number from text.
    pub(super) converted: bool,
}

/// A place in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) base: String,
    /// In elements.
    pub(super) offset: Linear,
}

impl Pointer {
    pub(super) fn start(base: impl Into<String>) -> Self {
        Self { base: base.into(), offset: Linear::default() }
    }
}

impl Value {
    pub(super) fn number(number: Linear) -> Self {
        Self { number: Some(number), ..Self::default() }
    }

    fn base(&self) -> Option<&str> {
        self.pointer.as_ref().map(|pointer| pointer.base.as_str())
    }

    pub(super) fn or(mut self, other: &Self) -> Self {
        self.taint.join(&other.taint);
        if self.text != other.text {
            append(&mut self.text, &other.text);
        }
        self.literal &= other.literal;
        if self.number != other.number {
            self.number = None;
        }
        if self.pointer != other.pointer {
            self.pointer = self.pointer.or_else(|| other.pointer.clone());
        }
        self.converted |= other.converted;
        self.of_text |= other.of_text;
        self
    }
}

pub(super) fn append(text: &mut String, more: &str) {
    let room = TEXT.saturating_sub(text.len());
    text.extend(more.chars().take(room));
}

/// Memory that pointers point into.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffer {
    /// Elements that fit.
    pub(super) capacity: Option<Linear>,
    /// Bytes of an element.
    pub(super) element: i64,
    /// What untrusted data it holds.
    pub(super) taint: Taint,
    /// Literal text that it holds.
    pub(super) text: String,
    /// Its elements are never negative.
    pub(super) unsigned: bool,
    /// The caller made it.
    pub(super) parameter: bool,
    /// An array, so that `sizeof` is its size.
    pub(super) array: bool,
    /// A path without `..` and links.
    pub(super) resolved: bool,
}

/// Variables, memory, facts and checks at one point of the program.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) vars: BTreeMap<String, Value>,
    pub(super) buffers: BTreeMap<String, Buffer>,
    pub(super) facts: Facts,
    pub(super) cleared: Cleared,
    /// Signs that were refused one by one, by origin.
    pub(super) refused: BTreeMap<Origin, String>,
    pub(super) dead: bool,
}

impl State {
    pub(super) fn dead() -> Self {
        Self { dead: true, ..Self::default() }
    }

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
                let values = state.vars.values_mut().map(|value| &mut value.taint);
                for taint in values.chain(state.buffers.values_mut().map(|buffer| &mut buffer.taint)) {
                    *taint = state.cleared.applied(taint);
                }
            }
        }
        let mut vars = std::mem::take(&mut self.vars);
        for (name, value) in std::mem::take(&mut other.vars) {
            let joined = match vars.remove(&name) {
                Some(mine) if mine.base() != value.base() => {
                    // It may point here or there: of either only the content is known.
                    let taint = [self.content(&mine), other.content(&value)];
                    let text = self.text(&mine) + &other.text(&value);
                    let mut joined = Value { text, ..mine.or(&value) };
                    joined.pointer = None;
                    taint.iter().for_each(|taint| joined.taint.join(taint));
                    joined
                }
                Some(mine) => mine.or(&value),
                None => value,
            };
            vars.insert(name, joined);
        }
        let mut buffers = self.buffers;
        for (base, buffer) in other.buffers {
            match buffers.get_mut(&base) {
                Some(mine) => {
                    mine.taint.join(&buffer.taint);
                    if mine.text != buffer.text {
                        append(&mut mine.text, &buffer.text);
                    }
                    mine.resolved &= buffer.resolved;
                    if mine.capacity != buffer.capacity {
                        mine.capacity = mine.capacity.clone().or(buffer.capacity);
                    }
                }
                None => drop(buffers.insert(base, buffer)),
            }
        }
        let refused =
            self.refused.into_iter().filter(|(origin, signs)| other.refused.get(origin) == Some(signs));
        Self {
            vars,
            buffers,
            facts: self.facts.meet(&other.facts),
            cleared: self.cleared.meet(&other.cleared),
            refused: refused.collect(),
            dead: false,
        }
    }

    /// What a value could still do, with what the memory holds that it points to.
    pub(super) fn left(&self, value: &Value) -> Dangers {
        self.cleared.left(&self.content(value))
    }

    /// The taint of a value and of the memory that it points to.
    pub(super) fn content(&self, value: &Value) -> Taint {
        let mut taint = value.taint.clone();
        if let Some(buffer) = self.buffer(value) {
            taint.join(&buffer.taint);
        }
        taint
    }

    pub(super) fn text(&self, value: &Value) -> String {
        if !value.text.is_empty() {
            return value.text.clone();
        }
        self.buffer(value).map(|buffer| buffer.text.clone()).unwrap_or_default()
    }

    pub(super) fn buffer(&self, value: &Value) -> Option<&Buffer> {
        self.buffers.get(&value.pointer.as_ref()?.base)
    }

    pub(super) fn buffer_mut(&mut self, value: &Value) -> Option<&mut Buffer> {
        self.buffers.get_mut(&value.pointer.as_ref()?.base)
    }
}
