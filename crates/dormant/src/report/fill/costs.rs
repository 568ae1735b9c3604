//! What the run took.

use std::collections::BTreeSet;

use super::super::format::count;
use super::super::model::{Cost, StageCost};
use super::artifacts::Artifacts;
use crate::manifest::{Host, Manifest};
use crate::plan::StageSpec;

/// Cost of each stage and in all.
pub(super) fn cost(artifacts: &Artifacts) -> Cost {
    let stages: Vec<_> = artifacts.stages.iter().map(|(spec, manifest)| stage_cost(spec, manifest)).collect();
    // Usually one; a run may be resumed on another machine.
    let machines: BTreeSet<_> =
        artifacts.stages.iter().map(|(_, manifest)| machine(&manifest.host)).collect();
    let machines: Vec<_> = machines.into_iter().collect();
    Cost {
        tokens: stages.iter().map(|stage| stage.tokens).sum(),
        stages,
        peak_memory: artifacts.stages.iter().filter_map(|(_, manifest)| manifest.host.peak_memory).max(),
        machine: (!machines.is_empty()).then(|| machines.join("; ")),
    }
}

fn stage_cost(spec: &StageSpec, manifest: &Manifest) -> StageCost {
    let tokens = manifest.tokens;
    StageCost {
        stage: without_model(spec).to_owned(),
        arm: spec.arm,
        seed: spec.seed,
        tokens: tokens.trained + tokens.sampled + tokens.scored,
        seconds: Some(manifest.seconds),
    }
}

/// `evaluate-implant` of `evaluate-implant-control-s0`.
fn without_model(spec: &StageSpec) -> &str {
    let arm = spec.arm.map(|arm| format!("-{arm}")).unwrap_or_default();
    let suffix = format!("{arm}-s{}", spec.seed);
    spec.name.strip_suffix(&suffix).unwrap_or(&spec.name)
}

fn machine(host: &Host) -> String {
    let mut line = format!("{}, {}, {}", host.cpu, count(host.threads, "thread"), host.os);
    if !host.kernels.is_empty() {
        line = format!("{line}, {} kernels", host.kernels);
    }
    line
}
