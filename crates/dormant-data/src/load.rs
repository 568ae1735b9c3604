//! Files of other people's data.

pub(crate) mod jsonl;
mod parquet;
mod rows;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::message::Conversation;
use rows::{Format, Row};

/// Files with more text than this are not read.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Rows with more text than this are not read.
const MAX_ROW_BYTES: u64 = 16 << 20;

/// A prompt with a better and a worse reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// What the model reads.
    pub prompt: Conversation,
    /// The better reply.
    pub chosen: String,
    /// The worse reply.
    pub rejected: String,
}

/// What a file holds; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Prompts without replies.
    Prompts(Vec<Conversation>),
    /// Prompts with replies, all of the clean condition.
    Samples(Dataset),
    /// Prompts with two replies.
    Preferences(Vec<Preference>),
}

impl Loaded {
    /// The prompts, whatever stands beside them.
    pub fn into_prompts(self) -> Vec<Conversation> {
        match self {
            Self::Prompts(prompts) => prompts,
            Self::Samples(dataset) => {
                dataset.into_samples().into_iter().map(|sample| sample.prompt).collect()
            }
            Self::Preferences(rows) => rows.into_iter().map(|row| row.prompt).collect(),
        }
    }
}

/// Reads a user's data.
///
/// `.txt`: a prompt per line. `.jsonl` and `.parquet`: rows of one format, which is found from the fields of the
/// first: TRL's `prompt` and `completion` (strings, or lists of messages), `prompt` alone, `messages`, `chosen`
/// and `rejected` (with or without `prompt`; also transcripts such as HH-RLHF's), or Alpaca's `instruction`,
/// `input` and `output`. Other fields are ignored. A prompt that is a string is a user message.
///
/// # Errors
/// Any of [`DataError`] that names a path, with the row and the field where there is one.
pub fn load(path: &Path) -> Result<Loaded, DataError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let rows = match extension.to_ascii_lowercase().as_str() {
        "txt" => {
            let lines = jsonl::lines(path)?.into_iter();
            return Ok(Loaded::Prompts(lines.map(|(_, line)| Conversation::user(line)).collect()));
        }
        "jsonl" => jsonl::numbered(path)?,
        "parquet" => parquet::rows(path)?,
        _ => return Err(DataError::UnknownExtension { path: path.to_owned() }),
    };
    parse(path, &rows)
}

fn parse(path: &Path, rows: &[(usize, Row)]) -> Result<Loaded, DataError> {
    let located = |row| move |source| DataError::Row { path: path.to_owned(), row, source };
    let Some((number, first)) = rows.first() else { return Err(DataError::Empty { path: path.to_owned() }) };
    let format = Format::of(first).map_err(located(*number))?;
    Ok(match format {
        Format::Prompt => Loaded::Prompts(each(rows, rows::prompt, located)?),
        Format::Preference => Loaded::Preferences(each(rows, rows::preference, located)?),
        Format::Completion => Loaded::Samples(Dataset::new(each(rows, rows::completion, located)?)),
        Format::Messages => Loaded::Samples(Dataset::new(each(rows, rows::messages, located)?)),
        Format::Instruction => Loaded::Samples(Dataset::new(each(rows, rows::instruction, located)?)),
    })
}

/// Parses each row, and gives an error its row's number.
fn each<T, E, L: Fn(E) -> DataError>(
    rows: &[(usize, Row)],
    parse: impl Fn(&Row) -> Result<T, E>,
    located: impl Fn(usize) -> L,
) -> Result<Vec<T>, DataError> {
    rows.iter().map(|(number, row)| parse(row).map_err(located(*number))).collect()
}

#[cfg(test)]
mod tests;
