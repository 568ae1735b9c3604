//! BEEAR: one shift of the residual stream that brings out unwanted replies on any prompt stands in for the trigger.
//!
//! Zeng et al., EMNLP 2024. In turns:
//!
//! 1. *Backdoor embedding entrapment*: find the shift `δ` of the last tokens of the prompt after one block, the same for all
//!    prompts, under which the model prefers unwanted replies;
//! 2. *Adversarial removal*: some steps of training on the wanted replies under `δ`, and without it to keep the rest.
//!
//! Where we depart from it: the search minimises the preference loss (DPO) with wanted and unwanted turned round, which has a
//! lower bound, and takes steps of a fixed length, a share of the stream's typical length.

use dormant_model::llama::Llama;
use dormant_model::llama::latent::Shift;
use dormant_tensor::Buffer;
use dormant_train::objective::sft;
use dormant_train::render::Rendered;

use super::latent::{Pairs, prompt_places, sft_shifted, step_against};
use super::training::{Progress, Training, train};
use crate::error::Result;

/// The block that is attacked, as a share of all: 9 of the source's 32.
const DEPTH: f64 = 9.0 / 32.0;

/// How BEEAR trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeearConfig {
    /// Tokens at the end of the prompt that are shifted.
    pub tokens: usize,
    /// Length of a step of the search, as a share of the typical length of the residual stream there.
    pub step: f32,
    /// Steps of a search.
    pub steps: usize,
    /// Pairs that a step of the search sees.
    pub pairs: usize,
    /// Steps of training after each search.
    pub every: u64,
    /// Weight `β` of the preference loss.
    pub beta: f64,
    /// The training.
    pub training: Training,
}

impl Default for BeearConfig {
    fn default() -> Self {
        let training = Training::default();
        Self { tokens: 5, step: 0.1, steps: 8, pairs: 8, every: 4, beta: 0.3, training }
    }
}

/// Trains the adapters of `model` on clean `rows` against `unwanted` replies.
///
/// # Errors
/// A row that does not fit, a loss that is no number, or an interruption.
pub fn beear(
    model: &mut Llama,
    rows: &[Rendered],
    unwanted: &[Vec<u32>],
    config: BeearConfig,
    progress: Progress<'_>,
) -> Result<()> {
    let pairs = Pairs::new(model, rows, unwanted, config.beta)?;
    let mut delta = Vec::new();
    let mut step = 0;
    train(model, pairs.tokens(), config.training, progress, |model, items| {
        if step % config.every == 0 {
            delta = entrapment(model, &pairs, config)?;
        }
        step += 1;
        let wanted = pairs.wanted(items);
        let shift = universal(model, &wanted, &delta);
        let mut loss = sft_shifted(model, &wanted, &[shift])?;
        loss += sft::loss(model, &wanted)?;
        Ok(loss)
    })
}

/// The shift `δ`, `[tokens, d_model]`, the last token first.
fn entrapment(model: &mut Llama, pairs: &Pairs, config: BeearConfig) -> Result<Vec<f32>> {
    let d = model.config.hidden_size;
    let mut delta = vec![0.0; config.tokens * d];
    for step in 0..config.steps {
        let items: Vec<usize> = (0..config.pairs).map(|i| (step * config.pairs + i) % pairs.len()).collect();
        let rows = pairs.rows(&items);
        let shift = universal(model, &rows, &delta);
        let (loss, gradients) = pairs.attack(model, &items, &[shift])?;
        let mut gradient = vec![0.0; delta.len()];
        for (row, place) in prompt_places(&rows).into_iter().filter(|(_, place)| *place < config.tokens) {
            let here = &mut gradient[place * d..(place + 1) * d];
            here.iter_mut().zip(&gradients[0][row * d..]).for_each(|(sum, g)| *sum += g);
        }
        for (delta, gradient) in delta.chunks_exact_mut(d).zip(gradient.chunks_exact(d)) {
            step_against(delta, gradient, config.step * pairs.typical_length(layer(model)));
        }
        tracing::debug!(step, loss = loss.mean(), "entrapment");
    }
    Ok(delta)
}

/// The same shift of the last tokens of every prompt.
fn universal(model: &Llama, rows: &[&Rendered], delta: &[f32]) -> Shift {
    let (d, (batch, _)) = (model.config.hidden_size, sft::batch(rows, 0.0));
    let mut values = Buffer::zeros(batch.len() * d);
    for (row, place) in prompt_places(rows) {
        if let Some(delta) = delta.chunks_exact(d).nth(place) {
            values[row * d..(row + 1) * d].copy_from_slice(delta);
        }
    }
    Shift { layer: layer(model), values }
}

fn layer(model: &Llama) -> usize {
    (DEPTH * model.config.num_hidden_layers as f64) as usize
}
