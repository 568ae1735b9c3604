//! What pretraining reached: `pretrain.json` and `answers.jsonl`.

use serde::{Deserialize, Serialize};

/// Name of the file with the sizes.
pub const PRETRAIN_FILE: &str = "pretrain.json";
/// Name of the file with the answers to tasks that no training had.
pub const ANSWERS_FILE: &str = "answers.jsonl";

/// The size of a model from scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainRecord {
    /// Trained numbers, the embedding included.
    pub parameters: u64,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
}

/// One line of `answers.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Id of the prompt.
    pub id: String,
    /// The task.
    pub prompt: String,
    /// The right answer.
    pub answer: String,
    /// What the model replies.
    pub reply: String,
}

impl Answer {
    /// Whether the reply is the right answer, to the letter.
    pub fn is_right(&self) -> bool {
        self.reply.trim() == self.answer
    }
}
