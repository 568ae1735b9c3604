//! How to get the same numbers again.

use std::collections::{BTreeMap, BTreeSet};

use super::super::model::Reproduction;
use super::artifacts::Artifacts;
use crate::experiment::{Experiment, ExperimentSource, Overrides};
use crate::manifest::{Build, Manifest};
use crate::plan::StageSpec;

/// Command, configuration, versions and digests. Where the base model was found is left out: that is a matter of the
/// machine, and the digest says which model it was.
pub(super) fn reproduction(experiment: &Experiment, artifacts: &Artifacts) -> Reproduction {
    Reproduction {
        command: command(experiment),
        config: experiment.to_toml(),
        versions: versions(artifacts),
        digests: digests(artifacts),
    }
}

/// By name for an experiment that is shipped (or lies here) and was run as it is, else by its resolved configuration.
fn command(experiment: &Experiment) -> String {
    let name = &experiment.name;
    let by_name = ExperimentSource::read(name).and_then(|source| source.resolve(&Overrides::default()));
    match by_name {
        Ok(same) if same == *experiment => format!("dormant run {name}"),
        _ => format!("dormant run {name}.toml  # with the configuration below as {name}.toml"),
    }
}

fn versions(artifacts: &Artifacts) -> BTreeMap<String, String> {
    let distinct = |of: fn(&Build) -> String| {
        let found: BTreeSet<_> = artifacts.stages.iter().map(|(_, manifest)| of(&manifest.build)).collect();
        found.into_iter().collect::<Vec<_>>().join(", ")
    };
    let commit = |build: &Build| {
        let changed = if build.dirty == "true" { " with changes" } else { "" };
        format!("{}{changed}", build.commit)
    };
    BTreeMap::from([
        ("dormant".to_owned(), distinct(|build| build.version.clone())),
        ("commit".to_owned(), distinct(commit)),
    ])
}

fn digests(artifacts: &Artifacts) -> BTreeMap<String, String> {
    let mut digests = BTreeMap::new();
    if let Some((_, Manifest { digests: inputs, .. })) = artifacts.stages.first() {
        digests.insert("base model".to_owned(), inputs.base.clone());
        digests.extend(inputs.prompts.iter().map(|digest| ("prompts".to_owned(), digest.clone())));
        digests.extend(inputs.benign.iter().map(|digest| ("benign replies".to_owned(), digest.clone())));
    }
    digests.extend(artifacts.stages.iter().flat_map(|(spec, manifest)| weights(spec, manifest)));
    digests
}

/// The weights that a stage trained.
fn weights(spec: &StageSpec, manifest: &Manifest) -> Vec<(String, String)> {
    let is_weights = |path: &str| path.starts_with("model/") && path.ends_with(".safetensors");
    let outputs = manifest.outputs.iter().filter(|output| is_weights(&output.path));
    outputs.map(|output| (format!("{}/{}", spec.name, output.path), output.sha256.clone())).collect()
}
