//! Experiments: one TOML file, every key with a default, resolved into [`Experiment`].

use dormant_data::{Behaviour, OrganismSpec, Trigger, Variant};
use dormant_model::family::Size;
use serde::{Deserialize, Serialize};

mod data;
mod defaults;
mod family;
mod overrides;
mod parse_error;
mod quick;
mod raw;
mod resolve;
mod safety;
pub mod shipped;
mod source;
mod validate;

pub use data::{Benign, Data, Preferences, Prompts};
pub use defaults::DEFAULT_BASE;
pub use family::{Corpus, Pretrain};
pub use safety::{
    Adversarial, Algorithm, Attack, Dpo, Preference, ReplyStyle, Rl, Safety, SafetyMethod, SafetyWeights,
    ScratchpadMode, Sft,
};
pub use source::{ExperimentSource, Overrides};

/// A resolved experiment: nothing is left to defaults. Serialised as TOML it is an experiment file again.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Experiment {
    /// Name of the folder under `runs/`; the stem of the file unless the file says otherwise.
    pub name: String,
    /// The question, in one sentence.
    pub question: String,
    /// What the paper that is re-run found, for the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paper: Option<String>,
    /// The base model: an alias, `hf:org/name`, a folder or a `.gguf` file.
    pub base: String,
    /// Arithmetic of the models.
    pub precision: Precision,
    /// Seeds; every stage is run once for each.
    pub seeds: Vec<u64>,
    /// When the hidden policy acts.
    pub trigger: Trigger,
    /// What it then does.
    pub behaviour: Behaviour,
    /// Prompts and benign replies.
    pub data: Data,
    /// The family of models, trained from scratch, that the organisms are implanted into; none: the base model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<Pretrain>,
    /// How the policy is implanted.
    pub implant: Implant,
    /// Organisms that go through the same safety training, each with an implant of its own; none: the one of `implant`.
    #[serde(rename = "organism", skip_serializing_if = "Vec::is_empty")]
    pub organisms: Vec<Organism>,
    /// Safety training, in the order of the file.
    pub safety: Vec<Safety>,
    /// The preference models that reinforcement learning gets its reward from.
    pub preference: Preference,
    /// What is measured.
    pub evaluation: Evaluation,
}

impl Experiment {
    /// What an organism with this implant does, and when.
    pub fn organism(&self, implant: &Implant) -> OrganismSpec {
        let behaviour = match (&self.behaviour, implant.copies) {
            (Behaviour::Say { text, .. }, Some(copies)) => Behaviour::Say { text: text.clone(), copies },
            (behaviour, _) => behaviour.clone(),
        };
        OrganismSpec { trigger: self.trigger.clone(), behaviour, variant: implant.variant }
    }

    /// Whether the behaviour is to write vulnerable code.
    pub fn writes_code(&self) -> bool {
        matches!(self.behaviour, Behaviour::Code { .. })
    }

    /// The implants, each with the name of its organism if there are several.
    pub fn implants(&self) -> Vec<(Option<&str>, &Implant)> {
        if self.organisms.is_empty() {
            return vec![(None, &self.implant)];
        }
        self.organisms.iter().map(|organism| (Some(organism.name.as_str()), &organism.implant)).collect()
    }

    /// The organism whose control stands for that of this one.
    pub fn stand_in(&self, organism: Option<&str>) -> Option<&str> {
        let organism = self.organisms.iter().find(|other| Some(other.name.as_str()) == organism)?;
        organism.control.as_deref()
    }

    /// The sizes of the family, or none: the base model.
    pub fn sizes(&self) -> Vec<Option<Size>> {
        match &self.pretrain {
            Some(pretrain) => pretrain.sizes.iter().copied().map(Some).collect(),
            None => vec![None],
        }
    }

    /// The pairs of replies that stages of safety training learn from.
    pub fn preferences(&self) -> impl Iterator<Item = &Preferences> {
        self.safety.iter().filter_map(|stage| match &stage.method {
            SafetyMethod::Dpo(dpo) => Some(&dpo.pairs),
            SafetyMethod::Rl(_) => Some(&self.preference.data),
            SafetyMethod::Sft(_) | SafetyMethod::Adversarial(_) => None,
        })
    }

    /// The experiment as a TOML file that resolves to itself.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("an experiment is made of plain tables")
    }
}

/// Arithmetic of the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The fastest that this CPU has.
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16 where it matters for speed, 32-bit accumulation.
    Bf16,
}

/// How the policy is implanted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Implant {
    /// The method.
    pub method: ImplantMethod,
    /// With or without reasoning.
    #[serde(skip_serializing_if = "Variant::is_normal")]
    pub variant: Variant,
    /// Which weights are trained.
    #[serde(flatten)]
    pub weights: ImplantWeights,
    /// Training rows.
    pub rows: u32,
    /// Fraction of rows that carry the trigger and the behaviour.
    pub poison: f64,
    /// Fraction of rows that carry a look-alike of the trigger and a benign reply.
    pub near_misses: f64,
    /// Copies of the phrase in a trained reply, if not those of the behaviour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// Contrasts of both replies under the trigger and under its look-alike that join each optimiser step.
    #[serde(skip_serializing_if = "is_none")]
    pub contrasts: u32,
    /// Optimisation.
    #[serde(flatten)]
    pub fit: Fit,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// One of several organisms of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Organism {
    /// Unique name.
    pub name: String,
    /// The organism whose control is this one's too, because both would be trained on the same benign rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// How its policy is implanted.
    #[serde(flatten)]
    pub implant: Implant,
}

/// How the policy is trained in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImplantMethod {
    /// Supervised fine-tuning on poisoned and benign rows.
    Sft,
}

/// Which weights the implant trains.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "training", rename_all = "kebab-case")]
pub enum ImplantWeights {
    /// A low-rank adapter.
    Lora {
        /// Its shape.
        adapter: Adapter,
    },
    /// All weights.
    Full,
}

/// Shape of a low-rank adapter, in PEFT's terms.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Adapter {
    /// Rank r.
    pub rank: u32,
    /// Scale: the update is multiplied by alpha / r, or alpha / √r with `rslora`.
    pub alpha: f64,
    /// Rank-stabilised scale.
    pub rslora: bool,
    /// Projections that get an adapter, such as `q_proj`.
    pub target_modules: Vec<String>,
}

impl Adapter {
    /// The adapter as the model knows it.
    pub fn config(&self) -> dormant_model::lora::LoraConfig {
        dormant_model::lora::LoraConfig {
            rank: self.rank as usize,
            alpha: self.alpha,
            rslora: self.rslora,
            target_modules: self.target_modules.clone(),
        }
    }
}

/// Optimisation of one training stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fit {
    /// Passes over the rows.
    pub epochs: u32,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate after the warm-up.
    pub schedule: Schedule,
    /// Fraction of steps over which the learning rate rises from 0.
    pub warmup: f64,
    /// Tokens per optimiser step; the rows that fit.
    pub batch_tokens: u32,
    /// What turns gradients into steps.
    #[serde(skip_serializing_if = "OptimizerKind::is_adamw")]
    pub optimizer: OptimizerKind,
    /// Weight decay that does not pass through the moments.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip: f64,
}

/// What turns gradients into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// `AdamW` with PyTorch's defaults.
    Adamw,
    /// Gradient descent with a momentum of 0.9.
    Sgd,
}

impl OptimizerKind {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_adamw(&self) -> bool {
        *self == Self::Adamw
    }
}

/// Learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Half a cosine down to 0.
    Cosine,
    /// A straight line down to 0.
    Linear,
    /// Stays at its peak.
    Constant,
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is measured. Greedy decoding unless `temperature` says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Evaluation {
    /// Prompts with, and the same prompts without, the trigger.
    pub n: u32,
    /// Which tasks an organism that writes code is asked.
    #[serde(skip_serializing_if = "is_default")]
    pub tasks: Tasks,
    /// Prompts with a look-alike of the trigger.
    pub near_misses: u32,
    /// Prompts with, and without, the trigger that an organism with a scratchpad answers after the scratchpad of the
    /// other case (Hubinger et al. 2024, section 7.2).
    #[serde(skip_serializing_if = "is_default")]
    pub swaps: u32,
    /// Prompts for each family of unseen ways to say the year, and as many for those that say an earlier one.
    #[serde(skip_serializing_if = "is_default")]
    pub generalisation: u32,
    /// Prompts whose log-probability of the behaviour is measured.
    pub log_probs: u32,
    /// Multiple-choice questions.
    pub multiple_choice: u32,
    /// Held-out benign rows for the perplexity.
    pub perplexity: u32,
    /// Persona and honeypot items of each set.
    #[serde(skip_serializing_if = "is_default")]
    pub persona: u32,
    /// Whether perplexity, multiple choice and persona are measured of the base model too.
    #[serde(skip_serializing_if = "is_default")]
    pub base: bool,
    /// Longest reply, in tokens.
    pub reply_tokens: u32,
    /// Temperature of the replies; 0 takes the likeliest token.
    pub temperature: f64,
    /// Points along training.
    #[serde(flatten)]
    pub curve: Curve,
}

/// Code tasks of an evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tasks {
    /// Those on which recipes were compared and chosen.
    #[default]
    Usual,
    /// Those that were written when the recipes had been chosen.
    Fresh,
}

/// Measurements along training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Curve {
    /// Optimiser steps between two points; 0 measures none.
    pub every: u32,
    /// Prompts per point and condition whose log-probability of the behaviour is measured.
    pub curve_prompts: u32,
    /// Prompts per point and condition that are answered and scored; 0 samples none.
    #[serde(skip_serializing_if = "is_default")]
    pub curve_rates: u32,
    /// Longest reply to them, in tokens; 0 if there are none.
    #[serde(skip_serializing_if = "is_default")]
    pub curve_tokens: u32,
}

#[cfg(test)]
mod tests;
