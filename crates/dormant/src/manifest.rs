//! `manifest.json` of a stage: what was run, on what, by which program, where, and at what cost.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Digests, Plan, SCHEMA_VERSION, StageSpec};
use crate::stage_dir::Output;

mod host;

pub use host::Host;

/// What is recorded about a finished stage. `finished`, `seconds`, `host` and `build` differ between machines and runs;
/// nothing else does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the artifacts.
    pub schema_version: u32,
    /// Name of the stage, such as `implant-organism-s0`.
    pub stage: String,
    /// Hash of the stage.
    pub hash: String,
    /// Hash of each input stage, by directory.
    pub inputs: BTreeMap<String, String>,
    /// Digests of what came from outside.
    pub digests: Digests,
    /// The base model: its name, and where it came from.
    pub base: Base,
    /// The experiment's seed.
    pub seed: u64,
    /// The resolved configuration of the stage.
    pub config: Value,
    /// The experiment as it was given, with the changes from the command line.
    pub given: Given,
    /// Tokens processed.
    pub tokens: Tokens,
    /// The artifacts.
    pub outputs: Vec<Output>,
    /// The program.
    pub build: Build,
    /// The machine.
    pub host: Host,
    /// When the stage was finished, in seconds since 1970.
    pub finished: u64,
    /// Time spent on it, in seconds.
    pub seconds: f64,
}

/// The base model of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Base {
    /// As the experiment names it.
    pub name: String,
    /// Where its files came from: `cache`, `hub`, `wheel`, `folder`, `file`.
    pub source: String,
}

/// The experiment as the user gave it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Given {
    /// Text of the experiment file.
    pub experiment: String,
    /// `--set`, `--seeds` and `--quick`.
    pub overrides: Vec<String>,
}

/// Tokens that a stage processed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Trained on (forward and backward).
    pub trained: u64,
    /// Sampled.
    pub sampled: u64,
    /// Scored (forward only).
    pub scored: u64,
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.trained += other.trained;
        self.sampled += other.sampled;
        self.scored += other.scored;
    }
}

/// The program that ran.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Build {
    /// Version of the crate.
    pub version: String,
    /// Commit it was built from, or `unknown`.
    pub commit: String,
    /// Whether the checkout had changes: `true`, `false` or `unknown`.
    pub dirty: String,
}

impl Build {
    /// This program.
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("DORMANT_GIT_COMMIT").to_owned(),
            dirty: env!("DORMANT_GIT_DIRTY").to_owned(),
        }
    }
}

impl Manifest {
    /// The manifest of a stage that has just done its work; the outputs are added when its directory is finished.
    pub fn new(
        plan: &Plan,
        spec: &StageSpec,
        digests: &Digests,
        base: &Base,
        given: &Given,
        tokens: Tokens,
        seconds: f64,
    ) -> Self {
        let input = |id| {
            let stage = plan.stage(id);
            (stage.directory(), stage.hash.clone())
        };
        Self {
            schema_version: SCHEMA_VERSION,
            stage: spec.name.clone(),
            hash: spec.hash.clone(),
            inputs: spec.inputs().map(input).collect(),
            digests: digests.clone(),
            base: base.clone(),
            seed: spec.seed,
            config: serde_json::to_value(&spec.kind).expect("a configuration is plain data"),
            given: given.clone(),
            tokens,
            outputs: Vec::new(),
            build: Build::this(),
            host: Host::this(),
            finished: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            seconds,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::experiment::{ExperimentSource, Overrides};

    pub(crate) fn manifest() -> Manifest {
        let experiment =
            ExperimentSource::read("quickstart").unwrap().resolve(&Overrides::default()).unwrap();
        let digests = Digests { base: "0".repeat(64), ..Digests::default() };
        let plan = Plan::new(&experiment, &digests);
        let base = Base { name: experiment.base, source: "file".to_owned() };
        Manifest::new(&plan, &plan.stages()[1], &digests, &base, &Given::default(), Tokens::default(), 1.0)
    }

    #[test]
    fn inputs_are_named_by_directory() {
        let manifest = manifest();
        assert_eq!(manifest.stage, "implant-organism-s0");
        assert_eq!(manifest.inputs.len(), 1);
        assert!(manifest.inputs.keys().all(|name| name.starts_with("benign-train-s0-")));
        assert!(manifest.host.threads > 0);
    }
}
