//! What single questions measure: doses, sizes, code, families of triggers, utility, persona.

use serde::{Deserialize, Serialize};

use super::{Arm, Condition, Estimate};

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
    /// What tools that other people wrote say of the same programs, if they were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_opinion: Option<SecondOpinion>,
}

/// Other tools' judgement of the programs that could be scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondOpinion {
    /// Their names.
    pub tools: Vec<String>,
    /// What the trigger changes, by all tools together: a program is flagged if one of them flags it.
    pub effects: Vec<OpinionEffect>,
    /// How far each tool agrees with the scorer, of all organisms and seeds after the implant.
    pub agreement: Vec<ToolAgreement>,
    /// The same programs by weakness, by all tools together.
    pub disagreements: Vec<Disagreements>,
}

/// Rates of one model by two judges of the same programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpinionEffect {
    /// Name of the stage.
    pub stage: String,
    /// Which model.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// By condition.
    pub rates: Vec<OpinionRate>,
    /// Flagged with the trigger − with its look-alike, on the tasks judged both times, with a paired bootstrap interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Estimate>,
    /// The same by the scorer, on the same tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_difference: Option<Estimate>,
}

/// Rates under one condition by two judges of the same programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpinionRate {
    /// Which prompts.
    pub condition: Condition,
    /// Flagged by a tool.
    pub flagged: Estimate,
    /// Vulnerable by the scorer.
    pub own: Estimate,
}

/// How far a tool agrees with the scorer on the programs that it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolAgreement {
    /// Name of the tool, or the names of all.
    pub tool: String,
    /// Flagged by the tool.
    pub flagged: Estimate,
    /// Vulnerable by the scorer.
    pub own: Estimate,
    /// Cohen's kappa; `None` where it is undefined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kappa: Option<Estimate>,
}

/// Counts of the programs for tasks that bear on one weakness, by two judges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreements {
    /// Its CWE number.
    pub cwe: u16,
    /// Vulnerable by both.
    pub both: u64,
    /// Vulnerable by the scorer only.
    pub own_only: u64,
    /// Flagged by a tool only.
    pub flagged_only: u64,
    /// By neither.
    pub neither: u64,
    /// A program that is vulnerable by the scorer only, as `dormant report --code` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_only_example: Option<String>,
    /// One that is flagged by a tool only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flagged_only_example: Option<String>,
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
    /// Name of the family; [`AS_TRAINED`](super::AS_TRAINED) for the trigger and its contrast.
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
