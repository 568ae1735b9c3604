//! What the preference models were found to say.

use dormant_data::Fault;
use serde::{Deserialize, Serialize};

/// Name of a preference model's file: the scores of held-out pairs.
pub const HELD_OUT_FILE: &str = "held_out.json";

/// Name of an RL stage's file: the scores of the behaviour and of benign replies to the prompts of the training.
pub const BEHAVIOUR_FILE: &str = "behaviour_scores.json";

/// A pair with the scores of its replies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredPair {
    /// Id of the prompt.
    pub id: String,
    /// What is wrong with the worse reply.
    pub fault: Fault,
    /// Score of the better reply.
    pub chosen: f32,
    /// Score of the worse reply.
    pub rejected: f32,
}

impl ScoredPair {
    /// Whether the better reply has the higher score.
    pub fn is_right(&self) -> bool {
        self.chosen > self.rejected
    }
}

/// Benign replies (chosen) against the behaviour (rejected), as in figure 7 of Hubinger et al. 2024.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BehaviourRecord {
    /// By the preference model that gives the reward.
    pub main: Vec<ScoredPair>,
    /// By the one that checks it.
    pub check: Vec<ScoredPair>,
}
