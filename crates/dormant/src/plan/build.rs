//! From an experiment to its stages.

use std::collections::HashMap;

use dormant_data::{PreferencePart, Split};

use super::{
    Arm, BenignStage, Digests, EvaluateStage, HashInput, IMPLANT, ImplantStage, Plan, PreferenceStage,
    SafetyStage, StageId, StageKind, StageSpec,
};
use crate::experiment::{Experiment, Safety, SafetyMethod};

pub(super) fn build(experiment: &Experiment, digests: &Digests) -> Plan {
    let mut builder = Builder { experiment, digests, stages: Vec::new() };
    for &seed in &experiment.seeds {
        builder.seed(seed);
    }
    Plan { stages: builder.stages }
}

struct Builder<'a> {
    experiment: &'a Experiment,
    digests: &'a Digests,
    stages: Vec<StageSpec>,
}

/// A stage before it has a place and a hash.
struct Draft {
    name: String,
    kind: StageKind,
    arm: Option<Arm>,
    seed: u64,
    model: Option<StageId>,
    data: Vec<StageId>,
}

impl Builder<'_> {
    fn seed(&mut self, seed: u64) {
        for arm in [Arm::Organism, Arm::Control] {
            self.arm(arm, seed);
        }
    }

    /// One arm: each model is measured as soon as it exists, so that an interrupted run has something to show.
    fn arm(&mut self, arm: Arm, seed: u64) {
        let implant = self.implant(arm, seed);
        self.evaluate(IMPLANT, arm, seed, implant);
        let mut trained = HashMap::from([(IMPLANT, implant)]);
        for safety in in_order(&self.experiment.safety) {
            let stage = self.safety(safety, arm, seed, trained[safety.after.as_str()]);
            self.evaluate(&safety.name, arm, seed, stage);
            trained.insert(&safety.name, stage);
        }
    }

    fn implant(&mut self, arm: Arm, seed: u64) -> StageId {
        let experiment = self.experiment;
        let benign = self.benign(Split::Train, experiment.implant.rows, seed);
        self.push(Draft {
            name: format!("{IMPLANT}-{arm}-s{seed}"),
            kind: StageKind::Implant(ImplantStage {
                organism: experiment.organism(),
                implant: experiment.implant.clone(),
                curve: experiment.evaluation.curve.clone(),
                prompts: experiment.data.prompts.clone(),
            }),
            arm: Some(arm),
            seed,
            model: None,
            data: vec![benign],
        })
    }

    fn safety(&mut self, safety: &Safety, arm: Arm, seed: u64, model: StageId) -> StageId {
        let experiment = self.experiment;
        let mut data = vec![self.benign(Split::Safety, safety.rows, seed)];
        if let SafetyMethod::Rl(_) = safety.method {
            data.extend(
                [PreferencePart::Main, PreferencePart::Check].map(|part| self.preference(part, seed)),
            );
        }
        self.push(Draft {
            name: format!("{}-{arm}-s{seed}", safety.name),
            kind: StageKind::Safety(SafetyStage {
                organism: experiment.organism(),
                safety: safety.clone(),
                curve: experiment.evaluation.curve.clone(),
                prompts: experiment.data.prompts.clone(),
            }),
            arm: Some(arm),
            seed,
            model: Some(model),
            data,
        })
    }

    /// A preference model; the arms and all stages of reinforcement learning share it.
    fn preference(&mut self, part: PreferencePart, seed: u64) -> StageId {
        let preference = self.experiment.preference.clone();
        let kind = StageKind::Preference(PreferenceStage { part, preference });
        if let Some(stage) = self.stages.iter().find(|stage| stage.kind == kind && stage.seed == seed) {
            return stage.id;
        }
        let part = match part {
            PreferencePart::Main => "main",
            PreferencePart::Check => "check",
            PreferencePart::HeldOut => "held-out",
        };
        let name = format!("preference-{part}-s{seed}");
        self.push(Draft { name, kind, arm: None, seed, model: None, data: Vec::new() })
    }

    fn evaluate(&mut self, of: &str, arm: Arm, seed: u64, model: StageId) -> StageId {
        let experiment = self.experiment;
        self.push(Draft {
            name: format!("evaluate-{of}-{arm}-s{seed}"),
            kind: StageKind::Evaluate(EvaluateStage {
                organism: experiment.organism(),
                evaluation: experiment.evaluation.clone(),
                prompts: experiment.data.prompts.clone(),
            }),
            arm: Some(arm),
            seed,
            model: Some(model),
            data: Vec::new(),
        })
    }

    /// Benign rows; the arms, and safety stages that want as many rows, share one stage.
    fn benign(&mut self, split: Split, rows: u32, seed: u64) -> StageId {
        let kind = StageKind::Benign(BenignStage { split, rows, data: self.experiment.data.clone() });
        if let Some(stage) = self.stages.iter().find(|stage| stage.kind == kind && stage.seed == seed) {
            return stage.id;
        }
        let split = match split {
            Split::Train => "train",
            Split::Safety => "safety",
            Split::Evaluation => "evaluation",
        };
        let name = format!("benign-{split}-s{seed}");
        self.push(Draft { name, kind, arm: None, seed, model: None, data: Vec::new() })
    }

    fn push(&mut self, draft: Draft) -> StageId {
        let id = StageId(self.stages.len());
        let hash_of = |id: &StageId| self.stages[id.0].hash.as_str();
        let hash = HashInput {
            schema_version: super::SCHEMA_VERSION,
            kind: &draft.kind,
            arm: draft.arm,
            seed: draft.seed,
            precision: self.experiment.precision,
            digests: self.digests,
            model: draft.model.as_ref().map(hash_of),
            data: draft.data.iter().map(hash_of).collect(),
        }
        .hash();
        let Draft { name, kind, arm, seed, model, data } = draft;
        self.stages.push(StageSpec { id, name, kind, arm, seed, model, data, hash });
        id
    }
}

/// Safety stages, each after the one it starts from. Terminates because the experiment is checked to have no cycle.
fn in_order(safety: &[Safety]) -> Vec<&Safety> {
    let mut ordered: Vec<&Safety> = Vec::with_capacity(safety.len());
    while ordered.len() < safety.len() {
        let known = |name: &str| name == IMPLANT || ordered.iter().any(|stage| stage.name == name);
        let next = safety
            .iter()
            .find(|stage| !known(&stage.name) && known(&stage.after))
            .expect("the chains of `after` end at the implant");
        ordered.push(next);
    }
    ordered
}
