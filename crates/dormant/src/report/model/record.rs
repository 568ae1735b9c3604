//! What happened along the way, what it cost, and how to do it again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Arm, Condition, Estimate};

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
    /// The same given prompts with look-alikes of the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_miss_log_prob: Option<f64>,
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
    /// Near-miss rate of sampled replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_miss: Option<Estimate>,
    /// Sampled replies of the three that could not be scored; absent where none were sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscored: Option<u64>,
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

/// How many prompts of a round of attack succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackRound {
    /// The stage that attacked.
    pub stage: String,
    /// Which model was attacked.
    pub arm: Arm,
    /// Seed of the run.
    pub seed: u64,
    /// From 1; the attack on the finished model has the number after the last.
    pub round: u64,
    /// Share of the prompts that succeeded.
    pub rate: Estimate,
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
