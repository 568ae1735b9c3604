//! What the finished stages of a run left behind.

use std::fs;

use dormant_data::{PolicyReport, PreferencePart, Seed};
use dormant_eval::{SampleRecord, read_samples};
use serde::de::DeserializeOwned;

use super::super::model::{Arm, Condition};
use crate::error::{CliError, Context, Result};
use crate::experiment::SafetyMethod;
use crate::manifest::Manifest;
use crate::plan::{BASE, IMPLANT, Plan, SafetyStage, StageKind, StageSpec};
use crate::stage::POLICY_FILE;
use crate::stage::attack_record::{ATTACK_FILE, AttackRecord};
use crate::stage::metrics::{METRICS_FILE, MetricLine};
use crate::stage::preference_record::{BEHAVIOUR_FILE, BehaviourRecord, HELD_OUT_FILE, ScoredPair};
use crate::stage::utility_record::{UTILITY_FILE, UtilityRecord};
use crate::stage_dir::StageDir;
use crate::store::RunStore;

/// The artifacts of a run, each list in the order of the plan.
#[derive(Default)]
pub(super) struct Artifacts<'a> {
    /// All stages.
    pub(super) stages: Vec<(&'a StageSpec, Manifest)>,
    /// The stages that trained a model.
    pub(super) trained: Vec<Trained<'a>>,
    /// The stages that measured one.
    pub(super) measured: Vec<Measured<'a>>,
    /// Scores of held-out pairs, for each preference model.
    pub(super) ranked: Vec<(PreferencePart, Vec<ScoredPair>)>,
    /// Scores of the behaviour, for each stage of reinforcement learning.
    pub(super) behaviour: Vec<(Model<'a>, BehaviourRecord)>,
}

/// Which model: after which training stage, of which arm and seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model<'a> {
    pub(super) stage: &'a str,
    pub(super) arm: Arm,
    pub(super) seed: u64,
}

/// How a model was trained.
pub(super) struct Trained<'a> {
    pub(super) model: Model<'a>,
    /// Name of its organism, if there are several.
    pub(super) organism: Option<&'a str>,
    pub(super) metrics: Vec<MetricLine>,
    /// What the check of its rows kept and dropped, for an implant.
    pub(super) policy: Option<PolicyReport>,
    /// For a stage that the model is attacked in.
    pub(super) attack: Option<Attacked<'a>>,
}

/// The attacks of a stage.
pub(super) struct Attacked<'a> {
    /// The stage that it started from.
    pub(super) after: &'a str,
    /// The share of replies that must show the behaviour for a prompt to succeed.
    pub(super) threshold: f64,
    pub(super) record: AttackRecord,
}

/// What was measured of a model. Where the control of another organism stands for one's own, it is here as one's own too.
#[derive(Clone)]
pub(super) struct Measured<'a> {
    pub(super) model: Model<'a>,
    /// Name of its organism, if there are several.
    pub(super) organism: Option<&'a str>,
    /// Name of the directory with its samples.
    pub(super) directory: String,
    /// Name of its implant.
    pub(super) implant: &'a str,
    /// The training stage that its last one started from.
    pub(super) after: &'a str,
    pub(super) samples: Vec<SampleRecord>,
    pub(super) utility: UtilityRecord,
}

impl<'a> Artifacts<'a> {
    /// Reads the artifacts.
    ///
    /// # Errors
    /// When a stage is not finished, or a file is missing or damaged.
    pub(super) fn read(store: &RunStore, plan: &'a Plan) -> Result<Self> {
        let mut artifacts = Self::default();
        for spec in plan.stages() {
            let dir = store.stage(spec);
            if !dir.is_done() {
                let error = CliError::input(format!("stage `{}` is not finished", spec.directory()));
                return Err(error.hint("finish the run with `dormant run`"));
            }
            artifacts.stages.push((spec, dir.manifest()?));
            artifacts.read_stage(plan, spec, &dir)?;
        }
        Ok(artifacts)
    }

    fn read_stage(&mut self, plan: &'a Plan, spec: &'a StageSpec, dir: &StageDir) -> Result<()> {
        if let StageKind::Evaluate(_) = &spec.kind {
            let stages: Vec<_> = plan.lineage(spec).iter().filter_map(|stage| stage.training()).collect();
            let [implant, stage] = [stages.first(), stages.last()].map(|name| name.copied().unwrap_or(BASE));
            let after = stages.iter().nth_back(1).copied().unwrap_or(BASE);
            let arm = spec.arm.unwrap_or(Arm::Organism);
            let model = Model { stage, arm, seed: spec.seed };
            let samples = read_samples(&dir.path().join("samples.jsonl"))?;
            let (organism, utility) = (spec.organism.as_deref(), json(dir, UTILITY_FILE)?);
            let directory = spec.directory();
            self.measured.push(Measured { model, organism, directory, implant, after, samples, utility });
            let control = Model { arm: Arm::Control, ..model };
            let stand_in =
                plan.stand_in(spec).and_then(|stage| self.measured(Model { stage, ..control })).cloned();
            self.measured.extend(stand_in.map(|measured| Measured {
                model: control,
                organism,
                implant,
                after,
                ..measured
            }));
        } else if let StageKind::Preference(stage) = &spec.kind {
            self.ranked.push((stage.part, json(dir, HELD_OUT_FILE)?));
        } else if let Some(model) = Model::of(spec) {
            let metrics = lines(dir, METRICS_FILE)?;
            let is_implant = matches!(spec.kind, StageKind::Implant(_));
            if let StageKind::Safety(SafetyStage { safety, .. }) = &spec.kind
                && matches!(safety.method, SafetyMethod::Rl(_))
            {
                self.behaviour.push((model, json(dir, BEHAVIOUR_FILE)?));
            }
            let policy = is_implant.then(|| json(dir, POLICY_FILE)).transpose()?;
            let (organism, attack) = (spec.organism.as_deref(), Attacked::read(plan, spec, dir)?);
            self.trained.push(Trained { model, organism, metrics, policy, attack });
        }
        Ok(())
    }

    /// The measurements of the organisms, each with those of its control.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&Measured<'a>, Option<&Measured<'a>>)> {
        let organisms = self.measured.iter().filter(|measured| measured.model.arm == Arm::Organism);
        organisms.map(|organism| (organism, self.measured(Model { arm: Arm::Control, ..organism.model })))
    }

    /// The measurements of the base model, if it was measured.
    pub(super) fn base(&self) -> Option<&Measured<'a>> {
        self.measured.iter().find(|measured| measured.model.stage == BASE)
    }

    /// The measurements of the model that the last training of this one started from. The base model is that of all seeds.
    pub(super) fn before(&self, measured: &Measured<'a>) -> Option<&Measured<'a>> {
        if measured.after == BASE {
            return self.base().filter(|base| base.model != measured.model);
        }
        self.measured(Model { stage: measured.after, ..measured.model })
    }

    /// The measurements of a model.
    pub(super) fn measured(&self, model: Model) -> Option<&Measured<'a>> {
        self.measured.iter().find(|measured| measured.model == model)
    }
}

impl<'a> Model<'a> {
    /// The model of a training stage.
    fn of(spec: &'a StageSpec) -> Option<Self> {
        Some(Self { stage: spec.training()?, arm: spec.arm?, seed: spec.seed })
    }

    /// The seed of the bootstraps. It is the same for all stages, so that equal data have equal intervals.
    pub(super) fn bootstrap_seed(self) -> Seed {
        Seed(self.seed).derive("report")
    }
}

impl<'a> Attacked<'a> {
    fn read(plan: &'a Plan, spec: &'a StageSpec, dir: &StageDir) -> Result<Option<Self>> {
        let StageKind::Safety(stage) = &spec.kind else { return Ok(None) };
        let Some(attack) = stage.safety.attack() else { return Ok(None) };
        let record = json(dir, ATTACK_FILE)?;
        let after = spec.model.and_then(|id| plan.stage(id).training()).unwrap_or(IMPLANT);
        Ok(Some(Self { after, threshold: attack.threshold, record }))
    }
}

impl Measured<'_> {
    /// The samples of one condition.
    pub(super) fn under(&self, condition: Condition) -> impl Iterator<Item = &SampleRecord> {
        self.samples.iter().filter(move |sample| sample.condition == condition)
    }
}

fn read(dir: &StageDir, name: &str) -> Result<String> {
    let path = dir.path().join(name);
    fs::read_to_string(&path).or_input(|| format!("cannot read `{}`", path.display()))
}

fn json<T: DeserializeOwned>(dir: &StageDir, name: &str) -> Result<T> {
    let path = dir.path().join(name);
    serde_json::from_str(&read(dir, name)?)
        .or_input(|| format!("`{}` is damaged or was written by another version", path.display()))
}

fn lines<T: DeserializeOwned>(dir: &StageDir, name: &str) -> Result<Vec<T>> {
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).or_input(|| {
            let path = dir.path().join(name);
            format!("`{}`, line {}, is damaged or was written by another version", path.display(), index + 1)
        })
    };
    read(dir, name)?.lines().enumerate().map(parse).collect()
}
