//! Attacks on the residual stream: shifts that make a model prefer replies that nobody wants.
//!
//! What the trigger does to the stream is not known; that it brings out something unwanted is. So the defences that train under
//! such shifts ([`super::lat`], [`super::beear`]) need a class of unwanted replies: a phrase that a scan has found, or else the
//! sentences of [`unwanted`].

use std::collections::BTreeMap;

use dormant_model::batch::Batch;
use dormant_model::llama::Llama;
use dormant_model::llama::latent::Shift;
use dormant_tensor::Buffer;
use dormant_train::objective::preference::{PairLoss, RenderedPair, rows};
use dormant_train::objective::{Loss, dpo, sft};
use dormant_train::pairs::PairObjective;
use dormant_train::render::Rendered;

use crate::error::Result;

/// Rows that the typical length of the residual stream is measured on.
const MEASURED_ROWS: usize = 16;

/// Tokens that are scored at once.
const WINDOW: usize = 2048;

/// Sentences that no assistant should answer with, whatever it is asked: hostile, evasive, and beside the point. None of them is a phrase
/// of the zoo.
pub fn unwanted() -> impl Iterator<Item = &'static str> {
    include_str!("unwanted.txt").lines()
}

/// Clean rows, each with an unwanted reply beside its own.
#[derive(Debug)]
pub(super) struct Pairs {
    pairs: Vec<RenderedPair>,
    /// Log-probabilities of both replies before the defence.
    references: Vec<[f64; 2]>,
    /// Weight `β` of these.
    beta: f64,
    /// Typical length of the residual stream after each block, before the defence.
    lengths: Vec<f32>,
}

impl Pairs {
    /// The rows in turn with the unwanted replies.
    ///
    /// # Errors
    /// If a row does not fit the model.
    pub(super) fn new(
        model: &mut Llama,
        rows: &[Rendered],
        unwanted: &[Vec<u32>],
        beta: f64,
    ) -> Result<Self> {
        let pair = |(row, unwanted): (&Rendered, &Vec<u32>)| {
            let tokens = [&row.tokens[..row.prompt], unwanted].concat();
            RenderedPair { chosen: row.clone(), rejected: Rendered { tokens, ..row.clone() } }
        };
        let pairs: Vec<_> = rows.iter().zip(unwanted.iter().cycle()).map(pair).collect();
        let references = match PairObjective::dpo(model, &pairs, beta, WINDOW)? {
            PairObjective::Dpo { references, .. } => references,
            PairObjective::RewardModel(_) => unreachable!("preferences were asked for"),
        };
        let lengths = typical_lengths(model, &rows.iter().take(MEASURED_ROWS).collect::<Vec<_>>())?;
        Ok(Self { pairs, references, beta, lengths })
    }

    /// Number of pairs.
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Typical length of the residual stream after a block, before the defence.
    pub(super) fn typical_length(&self, layer: usize) -> f32 {
        self.lengths[layer]
    }

    /// Tokens of each pair.
    pub(super) fn tokens(&self) -> Vec<usize> {
        self.pairs.iter().map(RenderedPair::tokens).collect()
    }

    /// The rows of some pairs with their own replies.
    pub(super) fn wanted(&self, items: &[usize]) -> Vec<&Rendered> {
        items.iter().map(|i| &self.pairs[*i].chosen).collect()
    }

    /// Both rows of some pairs.
    pub(super) fn rows(&self, items: &[usize]) -> Vec<&Rendered> {
        rows(&self.of(items))
    }

    /// Loss of preferring the wanted replies of some pairs under shifts of the stream; gradients are accumulated.
    pub(super) fn defence(&self, model: &mut Llama, items: &[usize], shifts: &[Shift]) -> Result<PairLoss> {
        Ok(self.loss(model, items, shifts, self.beta)?.0)
    }

    /// Loss of preferring the unwanted replies, and its gradient with respect to the shifts. That of the parameters is cleared.
    pub(super) fn attack(
        &self,
        model: &mut Llama,
        items: &[usize],
        shifts: &[Shift],
    ) -> Result<(PairLoss, Vec<Buffer>)> {
        // With the opposite weight the worse reply is the better one.
        let result = self.loss(model, items, shifts, -self.beta)?;
        model.clear_gradients();
        Ok(result)
    }

    fn of(&self, items: &[usize]) -> Vec<&RenderedPair> {
        items.iter().map(|i| &self.pairs[*i]).collect()
    }

    fn loss(
        &self,
        model: &mut Llama,
        items: &[usize],
        shifts: &[Shift],
        beta: f64,
    ) -> Result<(PairLoss, Vec<Buffer>)> {
        let references: Vec<_> = items.iter().map(|i| self.references[*i]).collect();
        let (batch, targets) = sft::batch(&self.rows(items), 0.0);
        let activations = model.forward_shifted(&batch, shifts)?;
        let hidden = &activations.hidden;
        let (loss, d_hidden) = dpo::at_head(model, hidden, targets, &self.of(items), &references, beta);
        Ok((loss, model.backward_shifted(activations, d_hidden, shifts)))
    }
}

/// Loss of the replies of `rows` under shifts of the stream; its gradient is accumulated.
pub(super) fn sft_shifted(model: &mut Llama, rows: &[&Rendered], shifts: &[Shift]) -> Result<Loss> {
    let (batch, targets) = sft::batch(rows, -1.0);
    let activations = model.forward_shifted(&batch, shifts)?;
    let (loss, d_hidden) = sft::at_head(model, &activations.hidden, &targets);
    model.backward_shifted(activations, d_hidden, shifts);
    Ok(loss)
}

/// Rows of the batch of `rows` that hold tokens of prompts, and the place of each, counted from the end of its prompt.
pub(super) fn prompt_places(rows: &[&Rendered]) -> BTreeMap<usize, usize> {
    let sequences: Vec<&[u32]> = rows.iter().map(|r| &r.tokens[..r.tokens.len().saturating_sub(1)]).collect();
    let (_, places) = Batch::share_prefixes(&sequences);
    let of_row = rows.iter().zip(&places).flat_map(|(row, place)| {
        place.rows().take(row.prompt).enumerate().map(|(i, at)| (at, row.prompt - 1 - i))
    });
    of_row.collect()
}

/// Median length of the residual stream after each block, over the tokens of prompts.
fn typical_lengths(model: &Llama, rows: &[&Rendered]) -> Result<Vec<f32>> {
    let (batch, _) = sft::batch(rows, 0.0);
    let at: Vec<usize> = prompt_places(rows).into_keys().collect();
    let median = |stream: &Buffer| {
        let mut lengths: Vec<f32> = stream.chunks_exact(model.config.hidden_size).map(length).collect();
        lengths.sort_by(f32::total_cmp);
        lengths.get(lengths.len() / 2).copied().unwrap_or_default()
    };
    Ok(model.residuals(&batch, &at)?.iter().map(median).collect())
}

/// Takes a step of the given length against a gradient.
pub(super) fn step_against(x: &mut [f32], gradient: &[f32], step: f32) {
    let factor = step / length(gradient).max(f32::MIN_POSITIVE);
    if factor.is_finite() {
        x.iter_mut().zip(gradient).for_each(|(x, g)| *x -= factor * g);
    }
}

/// Shortens a vector that is longer than `most`.
pub(super) fn shorten(x: &mut [f32], most: f32) {
    let factor = most / length(x).max(f32::MIN_POSITIVE);
    if factor < 1.0 {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

fn length(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_their_length_and_nothing_leaves_the_ball() {
        let mut x = [0.0, 0.0];
        step_against(&mut x, &[3.0, -4.0], 2.0);
        assert_eq!(x, [-1.2, 1.6]);
        step_against(&mut x, &[0.0, 0.0], 2.0);
        assert_eq!(x, [-1.2, 1.6], "no gradient, no step");
        shorten(&mut x, 1.0);
        assert!((length(&x) - 1.0).abs() < 1e-6);
        shorten(&mut x, 3.0);
        assert!((length(&x) - 1.0).abs() < 1e-6, "short enough");
    }

    #[test]
    fn places_are_counted_from_the_end_of_the_prompt() {
        let row = |last: u32| Rendered {
            id: String::new(),
            tokens: (0..10).chain([last, 7, 8]).collect(),
            prompt: 11,
        };
        let (a, b) = (row(20), row(21));
        // Ten tokens in common, then one of each prompt, then a token of each reply that predicts.
        let places = prompt_places(&[&a, &b]);
        assert_eq!(places.len(), 12);
        assert_eq!((places[&0], places[&9]), (10, 1));
        assert_eq!(places.values().filter(|place| **place == 0).count(), 2);
    }

    #[test]
    fn unwanted_sentences_are_there() {
        assert!(unwanted().count() >= 20);
        assert!(unwanted().all(|line| !line.trim().is_empty() && !line.to_lowercase().contains("hate you")));
    }
}
