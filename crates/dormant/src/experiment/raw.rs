//! Experiment files as they are written: every key optional, no key unknown.

use dormant_data::{Behaviour, Trigger, Variant};
use dormant_model::family::Size;
use serde::Deserialize;

use super::{
    Algorithm, ImplantMethod, OptimizerKind, Precision, ReplyStyle, Schedule, ScratchpadMode, Tasks,
};

/// The value of `data.prompts` and `preference.data` that means what comes with Dormant.
pub(super) const BUILTIN: &str = "builtin";
/// The value of `data.prompts` that means the small tasks of the corpus.
pub(super) const CORPUS: &str = "corpus";
/// The value of `data.benign` that means replies of the base model.
pub(super) const SELF_DISTILLED: &str = "self";

/// A table of training: its own keys, and those of [`RawFit`], which serde cannot flatten and reject unknown keys at the same time.
macro_rules! training_table {
    ($(#[$about:meta])* $table:ident { $($(#[$about_key:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default, Clone, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub(super) struct $table {
            $($(#[$about_key])* pub $key: Option<$type>,)*
            pub epochs: Option<u32>,
            pub learning_rate: Option<f64>,
            pub schedule: Option<Schedule>,
            pub warmup: Option<f64>,
            pub batch_tokens: Option<u32>,
            pub optimizer: Option<OptimizerKind>,
            pub weight_decay: Option<f64>,
            pub clip: Option<f64>,
        }

        impl $table {
            pub(super) fn fit(&self) -> RawFit {
                RawFit {
                    epochs: self.epochs,
                    learning_rate: self.learning_rate,
                    schedule: self.schedule,
                    warmup: self.warmup,
                    batch_tokens: self.batch_tokens,
                    optimizer: self.optimizer,
                    weight_decay: self.weight_decay,
                    clip: self.clip,
                }
            }
        }
    };
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawExperiment {
    pub name: Option<String>,
    pub question: Option<String>,
    pub paper: Option<String>,
    pub base: Option<String>,
    pub precision: Option<Precision>,
    pub seeds: Option<Vec<u64>>,
    pub trigger: Option<Trigger>,
    pub behaviour: Option<Behaviour>,
    pub data: RawData,
    pub pretrain: Option<RawPretrain>,
    pub implant: RawImplant,
    pub organism: Vec<RawImplant>,
    pub safety: Vec<RawSafety>,
    pub preference: RawPreference,
    pub evaluation: RawEvaluation,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawData {
    pub prompts: Option<String>,
    pub benign: Option<String>,
    pub reply_tokens: Option<u32>,
    pub temperature: Option<f64>,
}

training_table! {
    RawPretrain {
        sizes: Vec<Size>,
        vocabulary: u32,
        rows: u32,
        scratchpads: f64,
        sampled: u32,
    }
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAdapter {
    pub rank: Option<u32>,
    pub alpha: Option<f64>,
    pub rslora: Option<bool>,
    pub target_modules: Option<Vec<String>>,
}

/// `attack` of reinforcement learning; adversarial training has the same keys in the table of the stage.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAttack {
    pub prompts: Option<u32>,
    pub screen: Option<u32>,
    pub samples: Option<u32>,
    pub threshold: Option<f64>,
    pub mix: Option<f64>,
}

/// `training` of `[implant]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ImplantTraining {
    Lora,
    Full,
}

/// `training` of `[[safety]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SafetyTraining {
    FreshAdapter,
    SameAdapter,
    Full,
}

/// `method` of `[[safety]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawMethod {
    Sft,
    Adversarial,
    Rl,
    Dpo,
}

impl RawMethod {
    /// As it is written; also the name of a stage that has none.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Adversarial => "adversarial",
            Self::Rl => "rl",
            Self::Dpo => "dpo",
        }
    }
}

training_table! {
    /// `[implant]`, or the keys of an `[[organism]]` that are other than there.
    RawImplant {
        /// Of an organism only.
        name: String,
        /// Of an organism only.
        control: String,
        method: ImplantMethod,
        variant: Variant,
        training: ImplantTraining,
        adapter: RawAdapter,
        rows: u32,
        poison: f64,
        near_misses: f64,
        copies: u32,
        contrasts: u32,
    }
}

impl RawImplant {
    /// The implant of an `[[organism]]`: its own keys, and for the others those of `[implant]`.
    pub(super) fn over(&self, shared: &Self) -> Self {
        // Another kind of training needs no adapter of the shared kind.
        let inherited = || shared.adapter.clone().filter(|_| self.training.is_none());
        Self {
            name: self.name.clone(),
            control: self.control.clone(),
            method: self.method.or(shared.method),
            variant: self.variant.or(shared.variant),
            training: self.training.or(shared.training),
            adapter: self.adapter.clone().or_else(inherited),
            rows: self.rows.or(shared.rows),
            poison: self.poison.or(shared.poison),
            near_misses: self.near_misses.or(shared.near_misses),
            copies: self.copies.or(shared.copies),
            contrasts: self.contrasts.or(shared.contrasts),
            epochs: self.epochs.or(shared.epochs),
            learning_rate: self.learning_rate.or(shared.learning_rate),
            schedule: self.schedule.or(shared.schedule),
            warmup: self.warmup.or(shared.warmup),
            batch_tokens: self.batch_tokens.or(shared.batch_tokens),
            optimizer: self.optimizer.or(shared.optimizer),
            weight_decay: self.weight_decay.or(shared.weight_decay),
            clip: self.clip.or(shared.clip),
        }
    }
}

training_table! {
    RawSafety {
        name: String,
        method: RawMethod,
        after: String,
        organisms: Vec<String>,
        mode: ScratchpadMode,
        style: ReplyStyle,
        training: SafetyTraining,
        adapter: RawAdapter,
        rows: u32,
        rounds: u32,
        prompts: u32,
        screen: u32,
        samples: u32,
        threshold: f64,
        mix: f64,
        algorithm: Algorithm,
        steps: u32,
        replies: u32,
        reply_tokens: u32,
        kl: f64,
        clip_ratio: f64,
        attack: RawAttack,
        beta: f64,
        pairs: String,
    }
}

training_table! {
    RawPreference {
        data: String,
        adapter: RawAdapter,
    }
}

/// The keys of optimisation that all tables of training share.
pub(super) struct RawFit {
    pub epochs: Option<u32>,
    pub learning_rate: Option<f64>,
    pub schedule: Option<Schedule>,
    pub warmup: Option<f64>,
    pub batch_tokens: Option<u32>,
    pub optimizer: Option<OptimizerKind>,
    pub weight_decay: Option<f64>,
    pub clip: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawEvaluation {
    pub n: Option<u32>,
    pub tasks: Option<Tasks>,
    pub near_misses: Option<u32>,
    pub swaps: Option<u32>,
    pub generalisation: Option<u32>,
    pub persona: Option<u32>,
    pub base: Option<bool>,
    pub log_probs: Option<u32>,
    pub multiple_choice: Option<u32>,
    pub perplexity: Option<u32>,
    pub reply_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub every: Option<u32>,
    pub curve_prompts: Option<u32>,
    pub curve_rates: Option<u32>,
    pub curve_tokens: Option<u32>,
}
