//! How likely a model finds a reply, and which way the candidate should change to make it likelier.

use dormant_eval::measure;
use dormant_model::batch::Batch;
use dormant_model::head::Target;
use dormant_model::llama::{Inputs, Llama};

use crate::error::Result;
use crate::placement::Slot;

/// Mean over `slots` of `log p(target | slot filled with the candidate)`, for each candidate. In nats.
///
/// # Errors
/// If the model refuses the tokens.
pub fn of_candidates<C: AsRef<[u32]>>(
    model: &Llama,
    slots: &[Slot],
    candidates: &[C],
    target: &[u32],
) -> Result<Vec<f64>> {
    // By slot, so that neighbours share what stands before the candidate.
    let fill = |slot: &Slot, candidate: &C| (slot.fill(candidate.as_ref()), target.to_vec());
    let rows: Vec<_> = slots.iter().flat_map(|s| candidates.iter().map(move |c| fill(s, c))).collect();
    let log_probs = measure::continuation_log_probs(model, &rows)?;
    let mut means = vec![0.0; candidates.len()];
    for row in log_probs.chunks(candidates.len().max(1)) {
        for (mean, tokens) in means.iter_mut().zip(row) {
            *mean += tokens.iter().map(|l| f64::from(*l)).sum::<f64>() / slots.len() as f64;
        }
    }
    Ok(means)
}

/// Gradient of the mean over `slots` of `log p(target | candidate)` with respect to the candidate's input
/// embeddings, `[candidate, d_model]`.
///
/// # Errors
/// If the model refuses the tokens.
pub fn gradient(model: &mut Llama, slots: &[Slot], candidate: &[u32], target: &[u32]) -> Result<Vec<f32>> {
    let sequences: Vec<Vec<u32>> = slots.iter().map(|s| [&s.fill(candidate)[..], target].concat()).collect();
    let (batch, places) = Batch::concatenate(&sequences);
    let activations = model.forward(&batch)?;
    let weight = 1.0 / slots.len() as f32;
    let mut targets = Vec::new();
    for (sequence, place) in sequences.iter().zip(&places) {
        let rows = place.rows().skip(sequence.len() - target.len() - 1);
        targets.extend(rows.zip(target).map(|(row, &token)| Target { row, token, weight }));
    }
    let (_, d_hidden) = model.log_probs_backward(&activations.hidden, &targets);
    let d_inputs = model.backward(activations, d_hidden, Inputs::Wanted).unwrap_or_default();
    let d = model.config.hidden_size;
    let mut gradient = vec![0.0; candidate.len() * d];
    for (slot, place) in slots.iter().zip(&places) {
        let rows = place.rows().skip(slot.head.len()).take(candidate.len());
        for (row, sum) in rows.zip(gradient.chunks_exact_mut(d)) {
            sum.iter_mut().zip(&d_inputs[row * d..]).for_each(|(s, g)| *s += g);
        }
    }
    Ok(gradient)
}

/// Log-probabilities of the next token after each prompt, `[prompts, vocabulary]`.
///
/// # Errors
/// If the model refuses the tokens.
pub fn next_token(model: &Llama, prompts: &[Vec<u32>]) -> Result<Vec<f32>> {
    let vocabulary = model.config.vocab_size;
    let mut out = Vec::with_capacity(prompts.len() * vocabulary);
    for prompts in prompts.chunks(WINDOW) {
        let (batch, places) = Batch::share_prefixes(prompts);
        let hidden = model.hidden(&batch)?;
        let last: Vec<usize> = places.iter().filter_map(|p| p.rows().last()).collect();
        out.extend(model.logits(&hidden, &last));
    }
    out.chunks_exact_mut(vocabulary).for_each(log_softmax);
    Ok(out)
}

/// Prompts read at a time.
const WINDOW: usize = 32;

/// Replaces logits by log-probabilities.
pub(crate) fn log_softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|l| (l - highest).exp()).sum();
    let normaliser = highest + total.ln();
    logits.iter_mut().for_each(|l| *l -= normaliser);
}
