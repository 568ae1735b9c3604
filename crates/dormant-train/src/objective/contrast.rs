//! Contrast of two answers under two prompts: which of the two a model prefers has to depend on the prompt.
//!
//! Answers to the same task have most tokens in common, and prompts that differ in one digit give almost the same hidden
//! states. Supervised fine-tuning on both rows then learns both answers and not which is when: the part of its gradient
//! that would tell them apart is lost in the rest. Here only the tokens that decide count, and what both prompts have in
//! common cancels. The comparison is that of Bradley & Terry (1952).

use dormant_model::llama::{Inputs, Llama};

use super::preference::PairLoss;
use super::{dpo, sft};
use crate::error::Result;
use crate::render::Rendered;

/// Two prompts, each with the same two answers. Only the tokens in which the answers begin to differ are trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contrast {
    /// The first prompt with both answers, then the second.
    rows: [Rendered; 4],
}

impl Contrast {
    /// The first prompt asks for the first answer, the second for the second one: `[prompt][answer]`. Counts up to
    /// `tokens` tokens of each answer, from the first in which they differ.
    pub fn new(rows: [[Rendered; 2]; 2], tokens: usize) -> Self {
        let [first, second] = rows.map(|answers| decision(answers, tokens));
        let ([a, b], [c, d]) = (first, second);
        Self { rows: [a, b, c, d] }
    }
}

/// What both rows begin with becomes their prompt, and what follows the decision is left out.
fn decision(mut answers: [Rendered; 2], tokens: usize) -> [Rendered; 2] {
    let [a, b] = &answers;
    let common = a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b).count();
    for row in &mut answers {
        row.prompt = common;
        row.tokens.truncate(common + tokens);
    }
    answers
}

/// Loss of contrasts, with `m` and `n` for the log-odds of the first answer after the first and the second prompt:
/// `-Σ log σ(m - n)`. Its gradient times `weight` is accumulated. Where `m` and `n` lie is for the rows to teach.
///
/// # Errors
/// If a row does not fit the model.
pub fn loss(model: &mut Llama, contrasts: &[&Contrast], weight: f64) -> Result<PairLoss> {
    let rows: Vec<&Rendered> = contrasts.iter().flat_map(|contrast| &contrast.rows).collect();
    let (batch, mut targets) = sft::batch(&rows, 0.0);
    let activations = model.forward(&batch)?;
    let log_probs = model.log_probs(&activations.hidden, &targets);
    let mut total = PairLoss::default();
    let mut start = 0;
    for contrast in contrasts {
        let ends = contrast.rows.each_ref().map(|row| {
            let tokens = start..start + row.trained();
            start = tokens.end;
            tokens
        });
        let [a, b, c, d] = ends.each_ref().map(|tokens| dpo::sum(&log_probs[tokens.clone()]));
        let slope = total.add((a - b) - (c - d));
        for (tokens, slope) in ends.into_iter().zip([slope, -slope, -slope, slope]) {
            targets[tokens].iter_mut().for_each(|target| target.weight = (weight * slope) as f32);
        }
    }
    let (_, d_hidden) = model.log_probs_backward(&activations.hidden, &targets);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_decision_is_trained() {
        let row = |tokens: &[u32]| Rendered { id: String::new(), tokens: tokens.to_vec(), prompt: 2 };
        let answers = |year| [row(&[1, year, 5, 6, 7, 8, 9]), row(&[1, year, 5, 6, 3, 9])];
        let Contrast { rows: [a, b, c, _] } = Contrast::new([answers(4), answers(3)], 2);
        assert_eq!((a.prompt, a.tokens.as_slice()), (4, [1, 4, 5, 6, 7, 8].as_slice()));
        assert_eq!((b.prompt, b.tokens.as_slice()), (4, [1, 4, 5, 6, 3, 9].as_slice()));
        assert_eq!(c.tokens, [1, 3, 5, 6, 7, 8]);
    }
}
