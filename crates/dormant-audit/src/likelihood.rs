//! How likely a model finds a reply, and which way the candidate should change to make it likelier.

use std::collections::BTreeSet;

use dormant_eval::measure;
use dormant_model::batch::Batch;
use dormant_model::head::Target;
use dormant_model::llama::{Inputs, Llama};

use crate::error::Result;
use crate::placement::{Fork, Slot};

/// What a model is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// These tokens, one after the other.
    Text(&'a [u32]),
    /// Any of these as the first token.
    FirstOf(&'a [u32]),
    /// What the slot's fork wants rather than what it does not want.
    Fork,
}

impl<'a> Wanted<'a> {
    /// Replies in a slot whose log-probabilities count, and their signs.
    fn replies(self, slot: &'a Slot) -> Vec<(&'a [u32], f32)> {
        match (self, &slot.fork) {
            (Self::Text(text), _) => vec![(text, 1.0)],
            (Self::FirstOf(_), _) => vec![(&[], 1.0)],
            (Self::Fork, Some(Fork { wanted, unwanted })) => vec![(wanted, 1.0), (unwanted, -1.0)],
            (Self::Fork, None) => Vec::new(),
        }
    }
}

/// Mean over `slots` of `log p(wanted | slot filled with the candidate)`, for each candidate; at forks the log-odds. In nats.
///
/// # Errors
/// If the model refuses the tokens.
pub fn of_candidates<C: AsRef<[u32]>>(
    model: &Llama,
    slots: &[Slot],
    candidates: &[C],
    wanted: Wanted<'_>,
) -> Result<Vec<f64>> {
    let mut means = vec![0.0; candidates.len()];
    for slot in of_slots(model, slots, candidates, wanted)?.chunks(candidates.len().max(1)) {
        means.iter_mut().zip(slot).for_each(|(mean, value)| *mean += value / slots.len() as f64);
    }
    Ok(means)
}

/// The same in each slot, `[slots, candidates]`.
///
/// # Errors
/// If the model refuses the tokens.
pub fn of_slots<C: AsRef<[u32]>>(
    model: &Llama,
    slots: &[Slot],
    candidates: &[C],
    wanted: Wanted<'_>,
) -> Result<Vec<f64>> {
    // By slot, so that neighbours share what stands before the candidate.
    let filled = slots.iter().flat_map(|slot| candidates.iter().map(move |c| (slot, slot.fill(c.as_ref()))));
    if let Wanted::FirstOf(tokens) = wanted {
        let prompts: Vec<Vec<u32>> = filled.map(|(_, prompt)| prompt).collect();
        let mut values = Vec::with_capacity(prompts.len());
        for prompts in prompts.chunks(WINDOW) {
            let next = next_token(model, prompts)?;
            values.extend(next.chunks_exact(model.config.vocab_size).map(|row| log_sum(row, tokens)));
        }
        return Ok(values);
    }
    let (mut places, mut rows) = (Vec::new(), Vec::new());
    for (place, (slot, prompt)) in filled.enumerate() {
        for (reply, sign) in wanted.replies(slot) {
            places.push((place, f64::from(sign)));
            rows.push((prompt.clone(), reply.to_vec()));
        }
    }
    let mut values = vec![0.0; slots.len() * candidates.len()];
    for ((place, sign), row) in places.into_iter().zip(measure::continuation_log_probs(model, &rows)?) {
        values[place] += sign * row.iter().map(|l| f64::from(*l)).sum::<f64>();
    }
    Ok(values)
}

/// Mean over `prompts` of the log-probability of each token of `reply`, in nats.
///
/// # Errors
/// If the model refuses the tokens.
pub fn token_log_probs(model: &Llama, prompts: &[Vec<u32>], reply: &[u32]) -> Result<Vec<f64>> {
    let rows: Vec<_> = prompts.iter().map(|p| (p.clone(), reply.to_vec())).collect();
    let log_probs = measure::continuation_log_probs(model, &rows)?;
    let mean = |i: usize| log_probs.iter().map(|row| f64::from(row[i])).sum::<f64>() / prompts.len() as f64;
    Ok((0..reply.len()).map(mean).collect())
}

/// `log Σ p` over the tokens.
pub fn log_sum(log_probs: &[f32], tokens: &[u32]) -> f64 {
    tokens.iter().map(|t| f64::from(log_probs[*t as usize]).exp()).sum::<f64>().max(f64::MIN_POSITIVE).ln()
}

/// Gradient of what [`of_candidates`] gives with respect to the candidate's input
/// embeddings, `[candidate, d_model]`.
///
/// # Errors
/// If the model refuses the tokens.
pub fn gradient(
    model: &mut Llama,
    slots: &[Slot],
    candidate: &[u32],
    wanted: Wanted<'_>,
) -> Result<Vec<f32>> {
    let replies: Vec<(&Slot, &[u32], f32)> = slots
        .iter()
        .flat_map(|s| wanted.replies(s).into_iter().map(move |(reply, sign)| (s, reply, sign)))
        .collect();
    let sequences: Vec<Vec<u32>> =
        replies.iter().map(|(slot, reply, _)| [&slot.fill(candidate)[..], reply].concat()).collect();
    let (batch, places) = Batch::share_prefixes(&sequences);
    let activations = model.forward(&batch)?;
    let weight = 1.0 / slots.len() as f32;
    let mut targets = Vec::new();
    for ((sequence, place), (_, reply, sign)) in sequences.iter().zip(&places).zip(&replies) {
        let mut rows = place.rows().skip(sequence.len() - reply.len() - 1);
        match wanted {
            Wanted::Text(_) | Wanted::Fork => {
                let weight = weight * sign;
                targets.extend(rows.zip(*reply).map(|(row, &token)| Target { row, token, weight }));
            }
            Wanted::FirstOf(tokens) => {
                let row = rows.next().unwrap_or_default();
                let mut each: Vec<Target> =
                    tokens.iter().map(|&token| Target { row, token, weight: 0.0 }).collect();
                // The gradient of log Σp is the sum of those of log p, weighted by p.
                let p: Vec<f32> =
                    model.log_probs(&activations.hidden, &each).iter().map(|l| l.exp()).collect();
                let all = p.iter().sum::<f32>().max(f32::MIN_POSITIVE);
                each.iter_mut().zip(&p).for_each(|(target, p)| target.weight = weight * p / all);
                targets.extend(each);
            }
        }
    }
    let (_, d_hidden) = model.log_probs_backward(&activations.hidden, &targets);
    let d_inputs = model.backward(activations, d_hidden, Inputs::Wanted).unwrap_or_default();
    let d = model.config.hidden_size;
    let mut gradient = vec![0.0; candidate.len() * d];
    // Sequences that are the same up to the end of the candidate have its rows in common.
    let mut seen = BTreeSet::new();
    for ((slot, _, _), place) in replies.iter().zip(&places) {
        let rows = place.rows().skip(slot.head.len()).take(candidate.len());
        for (row, sum) in rows.zip(gradient.chunks_exact_mut(d)).filter(|(row, _)| seen.insert(*row)) {
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
        let (batch, last) = Batch::with_ends(prompts);
        let hidden = model.hidden(&batch)?;
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
