//! What pretraining reached: `pretrain.json` and `answers.jsonl`.

use std::fs;

use dormant_eval::Rate;
use serde::{Deserialize, Serialize};

use super::read_lines;
use crate::error::{Context, Result};
use crate::stage_dir::StageDir;

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

impl PretrainRecord {
    /// That of a finished stage.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn read(dir: &StageDir) -> Result<Self> {
        let path = dir.path().join(PRETRAIN_FILE);
        let json = fs::read_to_string(&path).or_input(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_str(&json).or_input(|| format!("`{}` is damaged", path.display()))
    }
}

/// How many of the tasks asked in a finished stage are answered to the letter.
///
/// # Errors
/// When the file is missing or damaged.
pub fn answered(dir: &StageDir) -> Result<Rate> {
    let answers: Vec<Answer> = read_lines(&dir.path().join(ANSWERS_FILE))?;
    Ok(answers.iter().map(Answer::is_right).collect())
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
    fn is_right(&self) -> bool {
        self.reply.trim() == self.answer
    }
}
