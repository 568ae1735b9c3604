//! Reward models: a scalar on the last token of a reply, trained to rank the better of two replies higher
//! (Bradley & Terry 1952; Ouyang et al. 2022, equation 1).

use dormant_model::batch::Batch;
use dormant_model::llama::{Inputs, Llama};
use dormant_model::scalar_head::ScalarHead;
use dormant_tensor::Buffer;

use super::preference::{PairLoss, RenderedPair, rows};
use crate::error::Result;
use crate::render::Rendered;
use crate::rl::update::windows;

/// Rewards are kept around 0 by a penalty `γ (r_chosen + r_rejected)²` (Eisenstein et al. 2023), since their
/// differences alone leave the level open.
pub const CENTRE: f64 = 0.01;

/// Loss of pairs, `-Σ log σ(r_chosen - r_rejected) + γ (r_chosen + r_rejected)²`; its gradient is accumulated in the
/// model and the head. What a pair has in common is computed once.
///
/// # Errors
/// If a row does not fit the model.
pub fn loss(
    model: &mut Llama,
    head: &mut ScalarHead,
    pairs: &[&RenderedPair],
    centre: f64,
) -> Result<PairLoss> {
    let (batch, last) = batch(&rows(pairs));
    let activations = model.forward(&batch)?;
    let scores = model.scalars(head, &activations.hidden, &last);
    let mut total = PairLoss::default();
    let mut slopes = Vec::with_capacity(scores.len());
    for pair in scores.chunks_exact(2) {
        let [chosen, rejected] = [f64::from(pair[0]), f64::from(pair[1])];
        let slope = total.add(chosen - rejected);
        let level = chosen + rejected;
        total.sum += centre * level * level;
        slopes.extend([slope, -slope].map(|s| (s + 2.0 * centre * level) as f32));
    }
    let mut d_hidden = Buffer::zeros(activations.hidden.len());
    model.scalars_backward(head, &activations.hidden, &last, &slopes, &mut d_hidden);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    Ok(total)
}

/// Score of each row, in windows of at most `tokens` tokens.
///
/// # Errors
/// If a row does not fit the model.
pub fn score(model: &Llama, head: &ScalarHead, all: &[&Rendered], tokens: usize) -> Result<Vec<f32>> {
    let mut scores = Vec::with_capacity(all.len());
    for window in windows(all, tokens) {
        let (batch, last) = batch(&all[window]);
        scores.extend(model.scalars(head, &model.hidden(&batch)?, &last));
    }
    Ok(scores)
}

/// Whole rows as a batch, and the batch's row of each one's last token.
fn batch(rows: &[&Rendered]) -> (Batch, Vec<usize>) {
    let sequences: Vec<&[u32]> = rows.iter().map(|r| r.tokens.as_slice()).collect();
    Batch::with_ends(&sequences)
}
