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

/// The width that learning rates of a family are written for.
const WIDTH: f64 = 64.0;

impl Fit {
    /// The same training for a member of a family. The learning rate falls in proportion to the width, so that a step changes
    /// what a model computes by as much at every size (Yang et al. 2022, "Tensor Programs V", table 3, hidden weights under
    /// Adam; here all weights, embeddings too). Two digits of it are kept.
    #[must_use]
    pub fn at(&self, size: Option<Size>) -> Self {
        let Some(size) = size else { return self.clone() };
        let rate = self.learning_rate * WIDTH / size.width() as f64;
        let learning_rate = format!("{rate:.1e}").parse().expect("a number is read back");
        Self { learning_rate, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::defaults;
    use super::*;

    #[test]
    fn a_wider_model_takes_smaller_steps() {
        let fit = defaults::fit(2e-3);
        let rate = |size| fit.at(size).learning_rate;
        assert!((rate(Some(Size::M0_3)) - 2e-3).abs() < 1e-12);
        assert!((rate(Some(Size::M3)) - 6.7e-4).abs() < 1e-12);
        assert_eq!(fit.at(None), fit);
    }
}
