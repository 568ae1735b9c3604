//! Errors of this crate.

use std::io;
use std::path::PathBuf;

use dormant_data::DataError;
use thiserror::Error;

/// What can go wrong in a measurement.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file of samples could not be read or written.
    #[error("cannot read or write `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of a file of samples is not a sample.
    #[error(
        "`{path}`, line {line}: expected one sample as a JSON object; the file is damaged or of another version"
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Two samples of one side of a paired comparison have the same key.
    #[error(
        "sample {key} occurs twice {side} the training; compare one stage, arm, seed and condition at a time"
    )]
    Duplicate {
        /// The key, as Rust's `Debug` writes it.
        key: String,
        /// `before` or `after`.
        side: &'static str,
    },
    /// A model answered another number of prompts than it was asked.
    #[error("expected replies to {expected} prompts, got replies to {got}")]
    ReplyCount {
        /// Prompts that were asked.
        expected: usize,
        /// Prompts that were answered.
        got: usize,
    },
    /// A behaviour cannot be judged.
    #[error("the behaviour cannot be judged")]
    Behaviour(#[from] DataError),
}
