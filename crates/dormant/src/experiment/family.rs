//! Models that are trained from scratch.

use dormant_model::family::Size;
use serde::Serialize;

use super::Fit;

/// Models that are trained from scratch on a corpus: small tasks with their answers, and replies of the base model to prompts
/// written for this project.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pretrain {
    /// The members. All are trained on the same rows.
    pub sizes: Vec<Size>,
    /// What they are trained on.
    #[serde(flatten)]
    pub corpus: Corpus,
    /// Optimisation, with the loss on all tokens.
    #[serde(flatten)]
    pub fit: Fit,
}

/// What a model is trained on from scratch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Corpus {
    /// Tokens of the vocabulary that is learnt from the corpus.
    pub vocabulary: u32,
    /// Tasks with their answers.
    pub rows: u32,
    /// The share of the tasks that are asked and answered with a scratchpad.
    pub scratchpads: f64,
    /// Replies of the base model.
    pub sampled: u32,
}
