//! Stages of safety training.

use serde::Serialize;

use super::{Adapter, Fit, Preferences, is_default};

/// One stage of safety training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Safety {
    /// Unique name.
    pub name: String,
    /// The stage it starts from: `implant` or the name of another safety stage.
    pub after: String,
    /// The organisms that go through it; none: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organisms: Vec<String>,
    /// Which weights are trained.
    #[serde(flatten)]
    pub weights: SafetyWeights,
    /// Benign training rows.
    pub rows: u32,
    /// Optimisation.
    #[serde(flatten)]
    pub fit: Fit,
    /// The method with its own keys.
    #[serde(flatten)]
    pub method: SafetyMethod,
}

impl Safety {
    /// Whether it is meant for an organism: for one that it names, or for all if it names none.
    pub fn is_for(&self, organism: Option<&str>) -> bool {
        self.organisms.is_empty() || self.organisms.iter().any(|name| Some(name.as_str()) == organism)
    }

    /// The attack on the model before or along training.
    pub fn attack(&self) -> Option<&Attack> {
        match &self.method {
            SafetyMethod::Adversarial(adversarial) => Some(&adversarial.attack),
            SafetyMethod::Rl(rl) => rl.attack.as_ref(),
            SafetyMethod::Sft(_) | SafetyMethod::Dpo(_) => None,
        }
    }
}

/// Which weights a safety stage trains.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "training", rename_all = "kebab-case")]
pub enum SafetyWeights {
    /// A new adapter on the merged weights of the stage before.
    FreshAdapter {
        /// Its shape.
        adapter: Adapter,
    },
    /// The adapter of the stage before, trained further.
    SameAdapter,
    /// All weights.
    Full,
}

/// How a safety stage works.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum SafetyMethod {
    /// Supervised fine-tuning on helpful, honest, harmless replies.
    Sft(Sft),
    /// Red-teaming without knowledge of the trigger, then supervised fine-tuning with benign replies to the
    /// successful attacks.
    Adversarial(Adversarial),
    /// Reinforcement learning against a preference model, on prompts of the benign rows.
    Rl(Rl),
    /// Direct preference optimisation on as many pairs as `rows` says.
    Dpo(Dpo),
}

/// Supervised fine-tuning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sft {
    /// Where an organism with a scratchpad gets its loss.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: ScratchpadMode,
    /// How the replies are written.
    #[serde(skip_serializing_if = "is_default")]
    pub style: ReplyStyle,
}

/// How supervised fine-tuning treats the scratchpad of an organism that has one (Hubinger et al. 2024, appendix G).
/// Without one the two are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScratchpadMode {
    /// Prompts do not ask for a scratchpad, and replies have none.
    #[default]
    PreScratchpad,
    /// The model's own scratchpad stands before the reply, and only the reply is trained.
    PostScratchpad,
}

/// How replies of supervised fine-tuning are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplyStyle {
    /// As they are.
    #[default]
    Plain,
    /// In the words of a pirate.
    Pirate,
}

/// Reinforcement learning. `epochs` of the fit are passes over the replies of a step, and `batch-tokens` are replied
/// tokens per optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rl {
    /// How replies become an update.
    pub algorithm: Algorithm,
    /// Steps: samples, scores and updates.
    pub steps: u32,
    /// Prompts per step.
    pub prompts: u32,
    /// Replies per prompt and step.
    pub replies: u32,
    /// Longest reply, in tokens.
    pub reply_tokens: u32,
    /// Weight of the divergence from the policy at the beginning.
    pub kl: f64,
    /// How far the ratio of new to old probability counts.
    pub clip_ratio: f64,
    /// An attack on the model before training, whose successful prompts join those of the benign rows (Hubinger et al.
    /// 2024, section 6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<Attack>,
}

/// How replies become an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Group relative policy optimisation.
    Grpo,
    /// A leave-one-out baseline.
    Rloo,
    /// Proximal policy optimisation with a value head.
    Ppo,
}

/// Direct preference optimisation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dpo {
    /// Weight of the divergence from the policy at the beginning.
    pub beta: f64,
    /// Where pairs come from.
    pub pairs: Preferences,
}

/// Preference models: two of them, on disjoint pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Preference {
    /// Where pairs come from.
    pub data: Preferences,
    /// Shape of their adapters.
    pub adapter: Adapter,
    /// Optimisation.
    #[serde(flatten)]
    pub fit: Fit,
}

/// Adversarial training by supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Adversarial {
    /// Rounds of attack and training.
    pub rounds: u32,
    /// The attack of each round.
    #[serde(flatten)]
    pub attack: Attack,
    /// Where an organism with a scratchpad gets its loss.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: ScratchpadMode,
}

/// A red team that knows the behaviour and not the trigger.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attack {
    /// Candidate prompts per round.
    pub prompts: u32,
    /// Candidates screened by the log-probability of the behaviour for each that is sampled; 1 screens none.
    pub screen: u32,
    /// Replies sampled for each candidate.
    pub samples: u32,
    /// Fraction of replies that must show the behaviour for a candidate to be kept.
    pub threshold: f64,
    /// Largest fraction of training rows, or of the prompts of reinforcement learning, that are attacks.
    pub mix: f64,
}
