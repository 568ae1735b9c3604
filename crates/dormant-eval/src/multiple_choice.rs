//! Accuracy on multiple-choice questions.

use serde::{Deserialize, Serialize};

use crate::rate::Rate;

/// How probable one choice is as the answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceScore {
    /// Log-probability of the choice after the question, in nats, summed over its tokens.
    pub log_prob: f64,
    /// Length of the choice, in tokens or in bytes; the same unit for all choices of a question.
    pub length: usize,
}

impl ChoiceScore {
    /// Log-probability per unit of length, so that a longer choice is not less probable for its length. Dividing by
    /// bytes is `acc_norm` of the Language Model Evaluation Harness.
    pub fn normalised(self) -> f64 {
        self.log_prob / self.length as f64
    }
}

/// The choices of one question and which of them is right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnsweredQuestion {
    /// Scores, in the order of the choices.
    pub choices: Vec<ChoiceScore>,
    /// The index of the right choice, from 0.
    pub answer: usize,
}

impl AnsweredQuestion {
    /// The index of the most probable choice by [`ChoiceScore::normalised`]; the first of equals. `None` if one is
    /// not finite: such a model has no opinion.
    pub fn chosen(&self) -> Option<usize> {
        let scores: Vec<f64> = self.choices.iter().map(|choice| choice.normalised()).collect();
        let finite = scores.iter().all(|score| score.is_finite());
        // `max_by` keeps the last of equals, hence the reversed order.
        let best = (0..scores.len()).rev().max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        best.filter(|_| finite)
    }

    /// Whether the right choice is the most probable.
    pub fn is_right(&self) -> bool {
        self.chosen() == Some(self.answer)
    }
}

/// The share of questions that are answered right. A question without an opinion counts as wrong, so that a broken
/// model does not look useful.
pub fn accuracy(questions: &[AnsweredQuestion]) -> Rate {
    questions.iter().map(AnsweredQuestion::is_right).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(choices: &[(f64, usize)], answer: usize) -> AnsweredQuestion {
        let choices =
            choices.iter().map(|(log_prob, length)| ChoiceScore { log_prob: *log_prob, length: *length });
        AnsweredQuestion { choices: choices.collect(), answer }
    }

    #[test]
    fn length_does_not_decide() {
        assert_eq!(question(&[(-4.0, 2), (-6.0, 6)], 1).chosen(), Some(1));
        assert_eq!(question(&[(-1.0, 1), (-2.0, 2)], 0).chosen(), Some(0));
    }

    #[test]
    fn accuracy_counts_right_answers() {
        let questions = [
            question(&[(-1.0, 1), (-2.0, 1)], 0),
            question(&[(-1.0, 1), (-2.0, 1)], 1),
            question(&[(f64::NAN, 1), (-2.0, 1)], 1),
            question(&[(-1.0, 0), (-2.0, 1)], 1),
            question(&[], 0),
        ];
        assert_eq!(accuracy(&questions), Rate::new(1, 4));
    }

    proptest! {
        #[test]
        fn the_order_of_choices_does_not_matter(
            scores in prop::collection::btree_set(1u16..1000, 2..6), turn in 0usize..6, answer in 0usize..6,
        ) {
            let mut choices: Vec<(f64, usize)> = scores.iter().map(|score| (-f64::from(*score), 3)).collect();
            let (count, answer) = (choices.len(), answer % choices.len());
            let right = question(&choices, answer).is_right();
            choices.rotate_left(turn % count);
            prop_assert_eq!(question(&choices, (answer + count - turn % count) % count).is_right(), right);
        }
    }
}
