//! Runs on disk: `runs/<experiment>/` with one directory per stage.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, Context, Result};
use crate::experiment::{Experiment, ExperimentSource, Overrides};
use crate::manifest::Base;
use crate::plan::{Digests, Plan, StageKind, StageSpec};
use crate::stage_dir::{StageDir, write_atomic};
use crate::tool_output::ToolOutput;

const LOCK: &str = ".lock";
const EXPERIMENT: &str = "experiment.toml";
const INPUTS: &str = "inputs.json";
const OPINIONS: &str = "opinions";
/// Stands in a run that was written as records: its stages have no models, and nothing can be run from it.
pub(crate) const RECORDS: &str = "RECORDS";

/// The directory of one experiment.
#[derive(Debug)]
pub struct RunStore {
    root: PathBuf,
    /// Held while this process writes. The system releases it when the process ends, however it ends.
    _lock: Option<File>,
}

/// What the stages of a run read from outside, written next to them so that a report needs nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunInputs {
    /// Digests.
    pub digests: Digests,
    /// The base model.
    pub base: Base,
}

impl RunStore {
    /// Opens the directory of an experiment for writing, and makes it if needed.
    ///
    /// # Errors
    /// When it cannot be written or holds records, or another process runs the same experiment there.
    pub fn create(runs: &Path, experiment: &str) -> Result<Self> {
        let root = runs.join(experiment);
        if root.join(RECORDS).exists() {
            let message = format!("`{}` holds the records of a run, without its models", root.display());
            return Err(
                CliError::input(message).hint("run elsewhere with `--runs`, or move the records away")
            );
        }
        fs::create_dir_all(&root).or_failure(|| format!("cannot create `{}`", root.display()))?;
        let lock = lock(&root)?;
        Ok(Self { root, _lock: Some(lock) })
    }

    /// Opens the directory of a run for reading.
    ///
    /// # Errors
    /// When there is no run.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.join(EXPERIMENT).is_file() {
            let error = CliError::input(format!("`{}` is not the directory of a run", root.display()));
            return Err(error.hint(
                "give a directory that `dormant run` made, such as runs/quickstart, or a `report.json`",
            ));
        }
        Ok(Self::at(root))
    }

    /// The directory of a run that may not exist yet, for looking only.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), _lock: None }
    }

    /// Where the run is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a stage, which need not exist yet.
    pub fn stage(&self, spec: &StageSpec) -> StageDir {
        StageDir::new(self.root.join(spec.directory()))
    }

    /// A finished stage of another run in the same folder that did the same work. Evaluations are not shared: their
    /// samples name what they measure as this experiment calls it.
    pub fn twin(&self, spec: &StageSpec) -> Option<StageDir> {
        if matches!(spec.kind, StageKind::Evaluate(_)) {
            return None;
        }
        let suffix = spec.hash_suffix();
        let has_models = |run: &PathBuf| *run != self.root && !run.join(RECORDS).exists();
        let other_runs = entries(self.root.parent()?).into_iter().filter(has_models);
        let alike = other_runs
            .flat_map(|run| entries(&run))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&suffix)));
        alike.map(StageDir::new).find(|stage| stage.finished_hash().as_deref() == Some(&spec.hash))
    }

    /// Whether a stage needs no work: it is finished here or in another run.
    pub fn has(&self, spec: &StageSpec) -> bool {
        self.stage(spec).is_done() || self.twin(spec).is_some()
    }

    /// Writes a file of the run, such as `report.json`, as a whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_atomic(&self.root.join(name), bytes)
    }

    /// Keeps what another tool found in the programs of this run, in place of what it found before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep_opinion(&self, given: &ToolOutput) -> Result<()> {
        let folder = self.root.join(OPINIONS);
        fs::create_dir_all(&folder).or_failure(|| format!("cannot create `{}`", folder.display()))?;
        write_atomic(&folder.join(format!("{}.json", given.tool)), given.text.as_bytes())
    }

    /// What other tools found, by name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn opinions(&self) -> Result<Vec<ToolOutput>> {
        let files = entries(&self.root.join(OPINIONS));
        let named = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        let read =
            |path: &PathBuf| ToolOutput::read(&path.file_stem().unwrap_or_default().to_string_lossy(), path);
        named.map(read).collect()
    }

    /// The files of the run beside its stages that a report is derived from.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        let named = [EXPERIMENT, INPUTS].map(|name| self.root.join(name));
        named.into_iter().chain(entries(&self.root.join(OPINIONS))).collect()
    }

    /// Records what is run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&self, experiment: &Experiment, inputs: &RunInputs) -> Result<()> {
        let inputs = serde_json::to_vec_pretty(inputs).expect("inputs are plain data");
        self.write_atomic(INPUTS, &inputs)?;
        self.write_atomic(EXPERIMENT, experiment.to_toml().as_bytes())
    }

    /// The experiment that was last run here, its outside inputs and its plan.
    ///
    /// # Errors
    /// When the files are missing or damaged.
    pub fn recorded(&self) -> Result<(Experiment, RunInputs, Plan)> {
        let read = |name: &str| {
            let path = self.root.join(name);
            fs::read_to_string(&path).or_input(|| format!("cannot read `{}`", path.display()))
        };
        let source = ExperimentSource::in_memory(EXPERIMENT, read(EXPERIMENT)?);
        let experiment = source.resolve(&Overrides::default())?;
        let inputs: RunInputs = serde_json::from_str(&read(INPUTS)?)
            .or_input(|| format!("`{}` is damaged", self.root.join(INPUTS).display()))?;
        let plan = Plan::new(&experiment, &inputs.digests);
        Ok((experiment, inputs, plan))
    }
}

/// What is in a folder, sorted by name; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Takes the lock of a run. It holds the id of its process, for the message to the second one.
fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let failed = || format!("cannot lock `{}`", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .or_failure(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            file.read_to_string(&mut owner).ok();
            return Err(CliError::failure(format!(
                "process {} is running `{}`",
                owner.trim(),
                root.display()
            ))
            .hint("wait for it, stop it, or choose another folder with `--runs`"));
        }
        Err(TryLockError::Error(error)) => return Err(error).or_failure(failed),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).or_failure(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunStore::create(folder.path(), "x").unwrap();
        let error = RunStore::create(folder.path(), "x").unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        RunStore::create(folder.path(), "y").unwrap();
        drop(first);
        RunStore::create(folder.path(), "x").unwrap();
    }

    #[test]
    fn a_run_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = RunStore::create(folder.path(), "quickstart").unwrap();
        let experiment =
            ExperimentSource::read("quickstart").unwrap().resolve(&Overrides::default()).unwrap();
        let digests = Digests { base: "0".repeat(64), ..Digests::default() };
        let base = Base { name: experiment.base.clone(), source: "file".to_owned() };
        assert!(RunStore::open(store.root()).is_err());
        store.record(&experiment, &RunInputs { digests: digests.clone(), base }).unwrap();
        let (read, inputs, plan) = RunStore::open(store.root()).unwrap().recorded().unwrap();
        assert_eq!(read, experiment);
        assert_eq!(inputs.digests, digests);
        assert_eq!(plan, Plan::new(&experiment, &digests));
    }
}
