//! Direct preference optimisation (Rafailov et al. 2023, equation 7).

use dormant_model::head::Target;
use dormant_model::llama::{Inputs, Llama};
use dormant_tensor::Buffer;

use super::preference::{PairLoss, RenderedPair, rows};
use super::sft;
use crate::error::Result;
use crate::render::Rendered;

/// Loss of pairs, `-Σ log σ(β (log p/p_ref (chosen) - log p/p_ref (rejected)))`; its gradient is accumulated.
/// `references` holds the log-probabilities of the two whole replies of each pair under the reference.
///
/// # Errors
/// If a row does not fit the model.
pub fn loss(
    model: &mut Llama,
    pairs: &[&RenderedPair],
    references: &[[f64; 2]],
    beta: f64,
) -> Result<PairLoss> {
    let (batch, targets) = sft::batch(&rows(pairs), 0.0);
    let activations = model.forward(&batch)?;
    let (total, d_hidden) = at_head(model, &activations.hidden, targets, pairs, references, beta);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    Ok(total)
}

/// The part of [`loss`] after the last block: the loss, and its gradient with respect to `hidden`, `[T, d_model]`. `targets` are
/// those of the pairs' rows, whose weights do not matter.
pub fn at_head(
    model: &mut Llama,
    hidden: &[f32],
    mut targets: Vec<Target>,
    pairs: &[&RenderedPair],
    references: &[[f64; 2]],
    beta: f64,
) -> (PairLoss, Buffer) {
    // The weight of a token depends on both whole replies, hence the two passes over the head.
    let log_probs = model.log_probs(hidden, &targets);
    let mut total = PairLoss::default();
    let mut start = 0;
    for (pair, reference) in pairs.iter().zip(references) {
        let lengths = pair.rows().map(Rendered::trained);
        let [chosen, rejected] = {
            let (chosen, rest) = log_probs[start..].split_at(lengths[0]);
            [sum(chosen) - reference[0], sum(&rest[..lengths[1]]) - reference[1]]
        };
        let slope = (beta * total.add(beta * (chosen - rejected))) as f32;
        for (length, weight) in lengths.into_iter().zip([slope, -slope]) {
            targets[start..start + length].iter_mut().for_each(|target| target.weight = weight);
            start += length;
        }
    }
    let (_, d_hidden) = model.log_probs_backward(hidden, &targets);
    (total, d_hidden)
}

/// Log-probability of a reply.
pub fn sum(log_probs: &[f32]) -> f64 {
    log_probs.iter().map(|l| f64::from(*l)).sum()
}
