//! Lines of JSON, read within bounds.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::{MAX_FILE_BYTES, MAX_ROW_BYTES};
use crate::error::DataError;

/// One record per line that is not blank.
pub(crate) fn records<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, DataError> {
    numbered(path).map(|records| records.into_iter().map(|(_, record)| record).collect())
}

/// Records with the lines they stand on.
pub(crate) fn numbered<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>, DataError> {
    lines(path)?
        .into_iter()
        .map(|(line, text)| match serde_json::from_str(&text) {
            Ok(record) => Ok((line, record)),
            Err(source) => Err(DataError::Json { path: path.to_owned(), line, source }),
        })
        .collect()
}

/// The lines that are not blank, trimmed, with their numbers from 1.
pub(crate) fn lines(path: &Path) -> Result<Vec<(usize, String)>, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    within(path, "its size in bytes", MAX_FILE_BYTES, file.metadata().map_err(io)?.len())?;
    // A pipe has no size of its own, hence the bound on what is read as well.
    let mut reader = BufReader::new(file.take(MAX_FILE_BYTES));
    let (mut lines, mut buffer) = (Vec::new(), Vec::new());
    for number in 1.. {
        buffer.clear();
        if (&mut reader).take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut buffer).map_err(io)? == 0 {
            break;
        }
        within(path, "the length of a line in bytes", MAX_ROW_BYTES, buffer.len() as u64)?;
        let text = std::str::from_utf8(&buffer)
            .map_err(|_| DataError::NotUtf8 { path: path.to_owned(), line: number })?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if !text.is_empty() {
            lines.push((number, text.to_owned()));
        }
    }
    if lines.is_empty() { Err(DataError::Empty { path: path.to_owned() }) } else { Ok(lines) }
}

/// Checks a size against its limit.
pub(super) fn within(path: &Path, what: &'static str, limit: u64, got: u64) -> Result<(), DataError> {
    if got > limit { Err(DataError::TooLarge { path: path.to_owned(), what, limit, got }) } else { Ok(()) }
}
