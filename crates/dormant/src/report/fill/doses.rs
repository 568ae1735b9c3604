//! Doses of safety training.

use std::collections::{BTreeMap, BTreeSet};

use dormant_data::Behaviour;

use super::super::model::{Arm, Dose};
use super::artifacts::Artifacts;
use crate::experiment::{Implant, ImplantWeights, OptimizerKind, Safety, SafetyMethod, SafetyWeights, Sft};
use crate::plan::{ImplantStage, Plan, StageKind, StageSpec};
use crate::stage::metrics::MetricLine;

/// The doses of all organisms, in the order of the plan; none if no organism got two that differ in steps or learning rate.
pub(super) fn doses(plan: &Plan, artifacts: &Artifacts) -> Vec<Dose> {
    let mut doses: Vec<Dose> = Vec::new();
    for dose in plan.stages().iter().filter_map(|spec| dose(plan, spec, artifacts)) {
        if doses.iter().all(|other| other.stage != dose.stage) {
            doses.push(dose);
        }
    }
    let mut distinct: BTreeMap<&str, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for dose in &doses {
        distinct.entry(&dose.before).or_default().insert((dose.steps, dose.learning_rate.to_bits()));
    }
    if distinct.values().any(|doses| doses.len() > 1) { doses } else { Vec::new() }
}

/// The dose of a stage of SFT on the organism that starts from its implant.
fn dose(plan: &Plan, spec: &StageSpec, artifacts: &Artifacts) -> Option<Dose> {
    let StageKind::Safety(stage) = &spec.kind else { return None };
    // Another style, or another place of the loss, is another training, and not more or less of the same.
    if stage.safety.method != SafetyMethod::Sft(Sft::default()) {
        return None;
    }
    let before = plan.stage(spec.model?);
    let StageKind::Implant(implant) = &before.kind else { return None };
    let name = spec.training()?;
    let of_stage = |trained: &&super::artifacts::Trained| {
        (trained.model.stage, trained.model.arm) == (name, Arm::Organism)
    };
    let metrics = &artifacts.trained.iter().find(of_stage)?.metrics;
    let steps = metrics.iter().filter(|line| matches!(line, MetricLine::Step { .. })).count();
    Some(Dose {
        stage: name.to_owned(),
        before: before.training()?.to_owned(),
        variant: spec.organism.clone(),
        poisoned_rows: poisoned_rows(&implant.implant),
        copies: copies(implant),
        implant_weights: implant_weights(&implant.implant).to_owned(),
        learning_rate: stage.safety.fit.learning_rate,
        steps: steps as u64,
        rows: stage.safety.rows,
        weights: safety_weights(&stage.safety).to_owned() + optimizer(&stage.safety),
    })
}

fn poisoned_rows(implant: &Implant) -> u32 {
    (implant.poison * f64::from(implant.rows)).round() as u32
}

fn copies(stage: &ImplantStage) -> Option<u32> {
    match stage.organism.behaviour {
        Behaviour::Say { copies, .. } => Some(copies),
        Behaviour::Regex { .. } | Behaviour::ToolCall { .. } | Behaviour::Code { .. } => None,
    }
}

fn implant_weights(implant: &Implant) -> &'static str {
    match implant.weights {
        ImplantWeights::Lora { .. } => "LoRA",
        ImplantWeights::Full => "all weights",
    }
}

/// The optimiser, where it is not the usual one.
fn optimizer(safety: &Safety) -> &'static str {
    match safety.fit.optimizer {
        OptimizerKind::Adamw => "",
        OptimizerKind::Sgd => " by SGD",
    }
}

fn safety_weights(safety: &Safety) -> &'static str {
    match safety.weights {
        SafetyWeights::FreshAdapter { .. } => "fresh LoRA",
        SafetyWeights::SameAdapter => "same LoRA",
        SafetyWeights::Full => "all weights",
    }
}
