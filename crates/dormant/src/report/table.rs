//! A table, for HTML and Markdown alike.

use serde::Serialize;

use super::format::NOT_MEASURED;

/// A table with a caption. The first `text_columns` columns hold words, the others numbers.
#[derive(Serialize)]
pub(super) struct Table {
    /// What it shows.
    pub(super) caption: String,
    /// Names of the columns.
    pub(super) head: Vec<String>,
    /// Number of columns on the left that hold words.
    pub(super) text_columns: usize,
    /// The rows.
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A value and what qualifies it, such as its interval.
#[derive(Serialize)]
pub(super) struct Cell {
    /// The value.
    pub(super) value: String,
    /// Its interval or count; may be empty.
    pub(super) detail: String,
}

impl Cell {
    /// A value with its qualification.
    pub(super) fn new(value: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { value: value.into(), detail: detail.into() }
    }

    /// A value alone.
    pub(super) fn plain(value: impl Into<String>) -> Self {
        Self::new(value, "")
    }

    /// Value and qualification, or a dash when it was not measured.
    pub(super) fn measured(cell: Option<(String, String)>) -> Self {
        cell.map_or_else(|| Self::plain(NOT_MEASURED), |(value, detail)| Self::new(value, detail))
    }
}

impl Table {
    /// A table with the given columns and no rows.
    pub(super) fn new(caption: impl Into<String>, text_columns: usize, head: &[&str]) -> Self {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        Self { caption: caption.into(), head, text_columns, rows: Vec::new() }
    }

    /// The table, unless it has no rows.
    pub(super) fn unless_empty(self) -> Option<Self> {
        (!self.rows.is_empty()).then_some(self)
    }
}
