//! Lists of samples, and their files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::hash;
use crate::load::jsonl;
use crate::sample::{Condition, Sample};

/// Samples in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dataset(Vec<Sample>);

impl Dataset {
    /// A dataset of these samples.
    pub fn new(samples: Vec<Sample>) -> Self {
        Self(samples)
    }

    /// The samples, in order.
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The samples themselves.
    pub fn into_samples(self) -> Vec<Sample> {
        self.0
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The samples under a condition, in order.
    pub fn under(&self, condition: Condition) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.condition == condition)
    }

    /// The bytes of the dataset's file: one JSON object per line.
    pub fn to_jsonl(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, sample| {
            text += &serde_json::to_string(sample).expect("a sample has only strings and lists");
            text.push('\n');
            text
        })
    }

    /// SHA-256 of [`Dataset::to_jsonl`], in hexadecimal: the dataset's identity, which depends on the order.
    pub fn content_hash(&self) -> String {
        hash::hex(self.to_jsonl().as_bytes())
    }

    /// Writes the dataset's file.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn write_jsonl(&self, path: &Path) -> Result<(), DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        file.write_all(self.to_jsonl().as_bytes()).map_err(io)?;
        file.flush().map_err(io)
    }

    /// Reads a file that [`Dataset::write_jsonl`] wrote. A user's own data is read by [`crate::load`].
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Json`], [`DataError::TooLarge`], and [`DataError::Empty`] for a file
    /// without rows.
    pub fn read_jsonl(path: &Path) -> Result<Self, DataError> {
        jsonl::records(path).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Conversation;

    fn sample(prompt: &str, completion: &str) -> Sample {
        Sample::clean(Conversation::user(prompt), completion)
    }

    #[test]
    fn the_hash_depends_on_content_and_order() {
        let (a, b) = (sample("a", "x"), sample("b", "y"));
        let hash =
            |samples: &[&Sample]| Dataset::new(samples.iter().copied().cloned().collect()).content_hash();
        assert_eq!(hash(&[&a, &b]), hash(&[&a, &b]));
        assert_ne!(hash(&[&a, &b]), hash(&[&b, &a]));
    }

    #[test]
    fn unknown_fields_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.jsonl");
        std::fs::write(&path, r#"{"id":"1","prompt":[],"completion":"","weight":2}"#).unwrap();
        let error = Dataset::read_jsonl(&path).unwrap_err();
        assert!(matches!(error, DataError::Json { line: 1, .. }), "{error:?}");
    }

    proptest! {
        #[test]
        fn files_round_trip(texts in prop::collection::vec(("\\PC{0,20}", "(?s).{0,20}"), 1..5)) {
            let dataset = Dataset::new(texts.iter().map(|(p, c)| sample(p, c)).collect());
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("rows.jsonl");
            dataset.write_jsonl(&path).unwrap();
            prop_assert_eq!(Dataset::read_jsonl(&path).unwrap(), dataset);
        }
    }
}
