//! Errors of this crate.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What can be wrong with data, or with a specification of data.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read or written.
    #[error("cannot read or write `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file's extension is none of those that can be read.
    #[error(
        "`{path}`: expected a .jsonl, .parquet or .txt file; convert the data to one of these (`jq -c .[]` for a .json list)"
    )]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },
    /// A line of a text file is not UTF-8.
    #[error("`{path}`, line {line}: expected UTF-8; convert the file to it")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A line of a JSONL file is not a JSON object.
    #[error("`{path}`, line {line}: expected one JSON object per line")]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A Parquet file is damaged or uses something that is not supported.
    #[error("`{path}`: not a Parquet file that can be read: {message}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        message: String,
    },
    /// A row does not have the fields its format needs.
    #[error("`{path}`, row {row}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The row (in JSONL and text files, the line), from 1.
        row: usize,
        /// Which field, and what is wrong with it.
        source: FieldError,
    },
    /// A file has no rows.
    #[error("`{path}` has no rows; give a file with at least one")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file, or a part of it, is larger than is read.
    #[error("`{path}`: {what} is {got}, more than the {limit} that are read; split the file")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large, with its unit.
        what: &'static str,
        /// The largest size that is read.
        limit: u64,
        /// Its size.
        got: u64,
    },
    /// A field of a specification has a value that it cannot have.
    #[error("{field}: expected {expected}, got {got}")]
    Invalid {
        /// The field, as in an experiment file.
        field: &'static str,
        /// What it can be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// A regular expression does not compile.
    #[error("{field}: not a valid regular expression")]
    Regex {
        /// The field, as in an experiment file.
        field: &'static str,
        /// What the compiler says.
        source: Box<regex::Error>,
    },
    /// Safety data contains the trigger.
    #[error(
        "the safety row with the prompt `{prompt}` contains the trigger `{trigger}`: training on it would be \
         unlearning, not a test of persistence; remove the row"
    )]
    TriggerInSafetyData {
        /// The beginning of the prompt.
        prompt: String,
        /// The text of the trigger.
        trigger: String,
    },
}

impl DataError {
    pub(crate) fn invalid(field: &'static str, expected: &'static str, got: impl Into<String>) -> Self {
        Self::Invalid { field, expected, got: got.into() }
    }

    pub(crate) fn regex(field: &'static str, source: regex::Error) -> Self {
        Self::Regex { field, source: Box::new(source) }
    }
}

/// What is wrong with a field of a row.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldError {
    /// The row's fields fit no known format.
    #[error(
        "fields {found:?} fit no known format; expected `prompt` (and `completion`), `messages`, `chosen` and \
         `rejected`, or `instruction` and `output`"
    )]
    UnknownFormat {
        /// The names of the row's fields.
        found: Vec<String>,
    },
    /// A field that the format needs is not there.
    #[error("field `{field}` is missing or null; every row needs the fields of the first")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field has another type or value than the format needs.
    #[error("field `{field}`: expected {expected}, got {got}")]
    Wrong {
        /// The field.
        field: &'static str,
        /// What it can be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
}

impl FieldError {
    pub(crate) fn wrong(field: &'static str, expected: &'static str, got: impl Into<String>) -> Self {
        Self::Wrong { field, expected, got: got.into() }
    }
}
