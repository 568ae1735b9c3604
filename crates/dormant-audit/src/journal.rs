//! What a scan has done so far, so that one that was stopped goes on where it was.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use dormant_model::atomic::atomic_write;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::report::{Finding, MethodReport};

/// What has been found and done up to the end of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progressed {
    /// The findings.
    pub findings: Vec<Finding>,
    /// What the methods did.
    pub methods: Vec<MethodReport>,
    /// What was left undone.
    pub undone: Vec<String>,
}

/// The finished steps of a scan, in a file that is written after each of them.
#[derive(Debug, Default)]
pub struct Journal {
    path: Option<PathBuf>,
    kept: Kept,
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The outcome of each finished step.
    steps: BTreeMap<String, Value>,
    /// What there was after the last of them.
    progressed: Progressed,
    /// Time spent until then, in seconds.
    seconds: f64,
}

impl Journal {
    /// Keeps nothing beyond this process.
    pub fn none() -> Self {
        Self::default()
    }

    /// Goes on with what the file holds, or begins anew if there is none that can be read. It must belong to the same models
    /// and the same configuration.
    pub fn open(path: PathBuf) -> Self {
        let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path: Some(path), kept: kept.unwrap_or_default() }
    }

    /// Whether there is anything to go on with.
    pub fn is_empty(&self) -> bool {
        self.kept.steps.is_empty()
    }

    /// Time spent before, without that of steps that were not finished.
    pub fn spent(&self) -> Duration {
        Duration::try_from_secs_f64(self.kept.seconds).unwrap_or_default()
    }

    /// What there was after the last finished step.
    pub(crate) fn progressed(&self) -> Progressed {
        self.kept.progressed.clone()
    }

    /// The outcome of a step, if it is finished.
    pub(crate) fn recall<T: DeserializeOwned>(&self, step: &str) -> Option<T> {
        T::deserialize(self.kept.steps.get(step)?).ok()
    }

    /// Keeps the outcome of a step.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn record(
        &mut self,
        step: &str,
        outcome: &impl Serialize,
        progressed: &Progressed,
        spent: Duration,
    ) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let outcome = serde_json::to_value(outcome).expect("outcomes are plain data");
        self.kept.steps.insert(step.to_owned(), outcome);
        self.kept.progressed = progressed.clone();
        self.kept.seconds = spent.as_secs_f64();
        let text = serde_json::to_vec(&self.kept).expect("outcomes are plain data");
        Ok(atomic_write(path, |file| file.write_all(&text))?)
    }

    /// Forgets everything: the next scan begins anew.
    pub fn finish(&mut self) {
        self.kept = Kept::default();
        if let Some(path) = &self.path {
            // A file that stays costs nothing but a shorter next scan of the same model.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_back_until_the_scan_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scan.json");
        let mut journal = Journal::open(path.clone());
        assert!(journal.is_empty() && journal.recall::<u32>("a").is_none());
        let progressed = Progressed { undone: vec!["b".to_owned()], ..Progressed::default() };
        journal.record("a", &7, &progressed, Duration::from_millis(1500)).unwrap();
        let mut again = Journal::open(path.clone());
        assert_eq!((again.recall::<u32>("a"), again.recall::<u32>("b")), (Some(7), None));
        assert_eq!(again.recall::<String>("a"), None, "of another kind");
        assert_eq!((again.progressed(), again.spent()), (progressed, Duration::from_millis(1500)));
        again.finish();
        assert!(Journal::open(path.clone()).is_empty());
        std::fs::write(&path, "{\"steps\": {\"a\"").unwrap();
        assert!(Journal::open(path).is_empty(), "a broken file is none");
    }
}
