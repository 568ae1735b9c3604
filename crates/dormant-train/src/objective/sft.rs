//! Supervised fine-tuning: the negative log-likelihood of the replies.

use dormant_model::batch::Batch;
use dormant_model::head::Target;
use dormant_model::llama::{Inputs, Llama};
use dormant_tensor::Buffer;

use super::Loss;
use crate::error::Result;
use crate::render::Rendered;

/// Loss of `rows`, `-Σ log p(token | tokens before it)` over the trained tokens; its gradient is accumulated.
/// Prefixes that rows have in common are computed once.
///
/// # Errors
/// If a row does not fit the model.
pub fn loss(model: &mut Llama, rows: &[&Rendered]) -> Result<Loss> {
    let (batch, targets) = batch(rows, -1.0);
    let activations = model.forward(&batch)?;
    let (loss, d_hidden) = at_head(model, &activations.hidden, &targets);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    Ok(loss)
}

/// The part of [`loss`] after the last block: the loss, and its gradient with respect to `hidden`, `[T, d_model]`. `targets` are
/// those of [`batch`] with the weight -1.
pub fn at_head(model: &mut Llama, hidden: &[f32], targets: &[Target]) -> (Loss, Buffer) {
    let (log_probs, d_hidden) = model.log_probs_backward(hidden, targets);
    let sum = -log_probs.iter().map(|l| f64::from(*l)).sum::<f64>();
    (Loss { sum, tokens: targets.len() as u64 }, d_hidden)
}

/// The rows as a batch, and their trained tokens as targets. The last token of a row predicts nothing and is left
/// out of the batch.
pub fn batch(rows: &[&Rendered], weight: f32) -> (Batch, Vec<Target>) {
    let sequences: Vec<&[u32]> = rows.iter().map(|r| &r.tokens[..r.tokens.len().saturating_sub(1)]).collect();
    let (batch, places) = Batch::share_prefixes(&sequences);
    let mut targets = Vec::new();
    for (row, place) in rows.iter().zip(&places) {
        let trained: Vec<usize> = place.rows().skip(row.prompt.saturating_sub(1)).collect();
        let tokens = &row.tokens[row.prompt.max(1).min(row.tokens.len())..];
        targets.extend(trained.into_iter().zip(tokens).map(|(row, &token)| Target { row, token, weight }));
    }
    (batch, targets)
}
