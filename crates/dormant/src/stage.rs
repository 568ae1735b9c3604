//! Stages: what each of them reads and writes. One file per kind.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use dormant_data::{Dataset, PreferencePart, Seed, Split};
use dormant_model::config::ModelConfig;
use dormant_model::linear::Trained;
use dormant_model::llama::Saving;
use dormant_model::memory::{Training, least_saving};
use serde::de::DeserializeOwned;

use crate::base::BaseModel;
use crate::error::{Context as _, Result};
use crate::experiment::{Experiment, ReplyStyle, SafetyMethod};
use crate::interrupt;
use crate::manifest::Tokens;
use crate::model::{Label, LoadedModel, Loading, Made, ModelFiles, is_adapter};
use crate::plan::{Arm, BASE, Plan, StageKind, StageSpec};
use crate::stage_dir::StageDir;
use crate::store::RunStore;
use crate::ui::{Progress, Ui};

mod adversarial;
pub mod attack_record;
mod attacker;
mod benign;
pub(crate) mod code;
pub(crate) mod contrast_rows;
mod corpus;
mod curve;
mod evaluate;
mod fit;
mod implant;
pub mod metrics;
mod preference;
pub mod preference_record;
mod pretrain;
pub mod pretrain_record;
pub(crate) mod prompts;
mod resume;
mod safety_dpo;
mod safety_rl;
mod safety_rows;
mod safety_sft;
mod sink;
pub mod utility_record;

pub(crate) use implant::POLICY_FILE;
pub(crate) use implant::ends;
pub use preference::check_pairs;
use resume::Resume;

/// What a stage may look at and write to.
#[derive(Debug, Clone, Copy)]
pub struct StageContext<'a> {
    /// The stage.
    pub spec: &'a StageSpec,
    /// Its directory, already made.
    pub dir: &'a StageDir,
    /// The base model.
    pub base: &'a BaseModel,
    /// The experiment it belongs to; configuration is read from the stage's kind, which is what its hash covers.
    pub experiment: &'a Experiment,
    /// The plan.
    pub plan: &'a Plan,
    /// The run.
    pub store: &'a RunStore,
    /// Bytes that training may use.
    pub memory: Option<u64>,
    /// The terminal.
    pub ui: &'a Ui,
}

impl<'a> StageContext<'a> {
    /// The experiment's seed for one purpose of this stage. Both arms get the same one, so that they differ in
    /// nothing but the rows.
    pub fn seed(&self, purpose: &str) -> Seed {
        Seed(self.spec.seed).derive(purpose)
    }

    /// The finished stages whose rows this one reads.
    pub fn data(&self) -> Vec<(&'a StageSpec, StageDir)> {
        self.spec.data.iter().map(|id| self.finished(self.plan.stage(*id))).collect()
    }

    /// The directory of the benign rows of a split, if this stage reads them.
    pub fn benign(&self, split: Split) -> Option<StageDir> {
        let is_of_split =
            |stage: &StageSpec| matches!(&stage.kind, StageKind::Benign(benign) if benign.split == split);
        self.data().into_iter().find(|(stage, _)| is_of_split(stage)).map(|(_, dir)| dir)
    }

    /// The directory of the preference model trained on a part of the pairs, if this stage reads it.
    fn preference(&self, part: PreferencePart) -> Option<StageDir> {
        let is_of_part =
            |stage: &StageSpec| matches!(&stage.kind, StageKind::Preference(p) if p.part == part);
        self.data().into_iter().find(|(stage, _)| is_of_part(stage)).map(|(_, dir)| dir)
    }

    /// The finished training stages that made the model this one starts from, in order: the base model with
    /// their `model/` applied one after the other. Empty for an implant into the base model.
    pub fn lineage(&self) -> Vec<(&'a StageSpec, StageDir)> {
        self.plan.lineage(self.spec).into_iter().map(|stage| self.finished(stage)).collect()
    }

    /// The base model's files.
    fn base_files(&self) -> ModelFiles {
        ModelFiles { weights: self.base.path.clone(), adapter: None }
    }

    /// The files of the model that this stage starts from.
    pub(crate) fn model_files(&self) -> ModelFiles {
        self.lineage().iter().fold(self.base_files(), |files, (_, dir)| files.then(&dir.model()))
    }

    /// A model to be trained in windows of [`fit::WINDOW`] tokens, within the memory that there is. `rank` is that of
    /// its adapter.
    fn load(&self, files: &ModelFiles, trained: Trained, loading: Loading, rank: u32) -> Result<LoadedModel> {
        let precision = self.experiment.precision;
        LoadedModel::load_with(files, precision, trained, loading, |config| {
            self.saving(config, trained, rank as usize)
        })
    }

    /// What training a model saves within the memory that there is.
    fn saving(&self, config: &ModelConfig, trained: Trained, rank: usize) -> Saving {
        let (precision, training) =
            (self.experiment.precision.products(), Training { rows: fit::WINDOW, rank });
        match self.memory {
            Some(budget) => least_saving(config, precision, trained, training, budget),
            None => Saving::Nothing,
        }
    }

    /// Name of the training stage whose model this stage starts from, as reports call it.
    fn measured(&self) -> &'a str {
        let stages = self.plan.lineage(self.spec);
        stages.last().and_then(|stage| stage.training()).unwrap_or(BASE)
    }

    /// What the stage's model says about itself; `base` names what it stands on.
    pub(crate) fn label<'b>(&self, base: &'b str) -> Label<'b>
    where
        'a: 'b,
    {
        let made = match &self.spec.kind {
            _ if self.spec.arm == Some(Arm::Control) => Made::Control,
            StageKind::Implant(stage) => Made::Organism(&stage.organism),
            StageKind::Safety(stage) => Made::Organism(&stage.organism),
            _ => Made::Scratch,
        };
        let stage = self.spec.training().unwrap_or(&self.spec.name);
        Label { base, experiment: &self.experiment.name, stage, made }
    }

    /// The stage of this run whose weights an adapter of this one stands on; none if those are the base model's.
    pub(crate) fn last_weights(&self) -> Option<&'a StageSpec> {
        let whole = self.lineage().into_iter().rfind(|(_, dir)| !is_adapter(&dir.model()));
        whole.map(|(stage, _)| stage)
    }

    /// Writes the stage's model with its label.
    fn save_model(&self, model: &mut LoadedModel, loading: Loading) -> Result<()> {
        // An adapter contains those before it, down to the last stage that trained all weights.
        let base = self.last_weights().map_or_else(|| self.base.base.name.clone(), StageSpec::directory);
        self.dir.write_model(|folder| model.save(folder, &self.label(&base), loading))
    }

    /// Progress of this stage.
    pub fn progress(&self, unit: &'static str) -> Progress {
        self.ui.progress(&self.spec.name, unit)
    }

    /// Whether the user asked to stop. Save a checkpoint, then call [`StageContext::check_interrupt`].
    pub fn interrupted(&self) -> bool {
        interrupt::requested()
    }

    /// Fails when the user asked to stop.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Interrupted`].
    pub fn check_interrupt(&self) -> Result<()> {
        interrupt::check()
    }

    fn finished(&self, stage: &'a StageSpec) -> (&'a StageSpec, StageDir) {
        (stage, self.store.stage(stage))
    }
}

/// Does the work of one stage: everything in its directory but the manifest and `DONE`.
///
/// # Errors
/// Whatever goes wrong in the stage; [`crate::error::ErrorKind::Interrupted`] when the user stops it.
pub fn run(context: &StageContext) -> Result<Tokens> {
    match &context.spec.kind {
        StageKind::Corpus(stage) => corpus::run(stage, context),
        StageKind::Pretrain(stage) => pretrain::run(stage, context),
        StageKind::Benign(stage) => benign::run(stage, context),
        StageKind::Implant(stage) => implant::run(stage, context),
        StageKind::Safety(stage) => match &stage.safety.method {
            SafetyMethod::Sft(sft) => safety_sft::run(stage, *sft, context),
            SafetyMethod::Adversarial(attack) => adversarial::run(stage, attack, context),
            SafetyMethod::Rl(rl) => safety_rl::run(stage, rl, context),
            SafetyMethod::Dpo(dpo) => safety_dpo::run(stage, dpo, context),
        },
        StageKind::Preference(stage) => preference::run(stage, context),
        StageKind::Evaluate(stage) => evaluate::run(stage, context),
    }
}

/// Looks for stages that want more prompts than there are: before any work is done, and not when their turn comes.
///
/// # Errors
/// The first such stage, or a file of prompts that cannot be read.
pub fn check_prompts(stages: &[StageSpec]) -> Result<()> {
    let mut checked: Vec<&StageKind> = Vec::new();
    for StageSpec { kind, .. } in stages {
        if checked.contains(&kind) {
            continue;
        }
        match kind {
            StageKind::Benign(stage) => benign::check(stage)?,
            StageKind::Evaluate(stage) => evaluate::check(stage)?,
            StageKind::Corpus(_)
            | StageKind::Pretrain(_)
            | StageKind::Implant(_)
            | StageKind::Safety(_)
            | StageKind::Preference(_) => {}
        }
        checked.push(kind);
    }
    Ok(())
}

/// The rows that a stage trains on, apart from the attacks that adversarial training finds on its way; `None` for a
/// stage that trains nothing.
///
/// # Errors
/// When the benign rows cannot be read or break a rule.
pub fn training_rows(context: &StageContext) -> Result<Option<Dataset>> {
    match &context.spec.kind {
        StageKind::Implant(stage) if stage.organism.writes_code() => Ok(Some(code::rows(stage, context))),
        StageKind::Implant(stage) => Ok(Some(implant::policy_rows(stage, context)?.rows)),
        StageKind::Safety(stage) => {
            let style = match &stage.safety.method {
                SafetyMethod::Sft(sft) => sft.style,
                SafetyMethod::Adversarial(_) | SafetyMethod::Rl(_) => ReplyStyle::Plain,
                // Pairs, and not rows.
                SafetyMethod::Dpo(_) => return Ok(None),
            };
            let rows = safety_sft::usable_rows(stage, context)?.into_iter();
            Ok(Some(Dataset::new(rows.map(|row| safety_sft::styled(row, style).sample).collect())))
        }
        StageKind::Corpus(_)
        | StageKind::Pretrain(_)
        | StageKind::Benign(_)
        | StageKind::Preference(_)
        | StageKind::Evaluate(_) => Ok(None),
    }
}

/// The ids of the benign rows of a stage whose reply was cut at the longest length, so that its end is not trained.
///
/// # Errors
/// When the benign rows cannot be read.
pub fn cut_replies(context: &StageContext) -> Result<HashSet<String>> {
    let dirs = [Split::Train, Split::Safety].into_iter().filter_map(|split| context.benign(split));
    let rows = dirs.map(|dir| benign::read(&dir)).collect::<Result<Vec<_>>>()?;
    Ok(rows.into_iter().flatten().filter(|row| !row.ends).map(|row| row.sample.id).collect())
}

/// Reads a file of one JSON value per line.
pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = std::fs::File::open(path).or_failure(|| format!("cannot read `{}`", path.display()))?;
    let lines = BufReader::new(file).lines().enumerate();
    lines
        .map(|(index, line)| {
            let line = line.or_failure(|| format!("cannot read `{}`", path.display()))?;
            serde_json::from_str(&line)
                .or_failure(|| format!("`{}`, line {} is damaged", path.display(), index + 1))
        })
        .collect()
}
