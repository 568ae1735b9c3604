//! Targeted latent adversarial training: whatever shift of the residual stream brings out unwanted replies, train under it.
//!
//! Sheshadri et al. 2024 (arXiv 2407.15549), the form for backdoors. For each batch of pairs of a wanted and an unwanted reply:
//!
//! 1. *Attack*: from nothing, some steps of projected gradient descent on shifts of the stream after several blocks, one for each
//!    token of the prompts, towards the preference loss (DPO) with wanted and unwanted turned round;
//! 2. *Defence*: one step of training on the preference loss under these shifts, and on the wanted replies without them.
//!
//! Where we depart from it: steps of the attack have a fixed length, as in usual PGD; the radius is a share of the stream's
//! typical length, because that of the source is for another model; one step of defence follows each attack, and not four; rows that
//! share a prefix share its shift.

use dormant_model::llama::Llama;
use dormant_model::llama::latent::Shift;
use dormant_tensor::Buffer;
use dormant_train::objective::sft;
use dormant_train::render::Rendered;

use super::latent::{Pairs, prompt_places, shorten, step_against};
use super::training::{Progress, Training, train};
use crate::error::Result;

/// The blocks that are attacked, as shares of all: 4, 12, 20 and 28 of the source's 32.
const DEPTHS: [f64; 4] = [0.125, 0.375, 0.625, 0.875];

/// How LAT trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatConfig {
    /// Longest shift, as a share of the typical length of the residual stream there.
    pub radius: f32,
    /// Steps of an attack.
    pub steps: u32,
    /// Weight `β` of the preference loss.
    pub beta: f64,
    /// The training.
    pub training: Training,
}

impl Default for LatConfig {
    fn default() -> Self {
        Self { radius: 0.2, steps: 4, beta: 0.3, training: Training::default() }
    }
}

/// Trains the adapters of `model` on clean `rows` against `unwanted` replies.
///
/// # Errors
/// A row that does not fit, a loss that is no number, or an interruption.
pub fn lat(
    model: &mut Llama,
    rows: &[Rendered],
    unwanted: &[Vec<u32>],
    config: LatConfig,
    progress: Progress<'_>,
) -> Result<()> {
    let pairs = Pairs::new(model, rows, unwanted, config.beta)?;
    train(model, pairs.tokens(), config.training, progress, |model, items| {
        let shifts = attack(model, &pairs, items, config)?;
        let defence = pairs.defence(model, items, &shifts)?;
        let wanted = pairs.wanted(items);
        // Both losses as means: over the pairs, and over the tokens.
        let tokens = wanted.iter().map(|row| row.trained()).sum::<usize>();
        model.scale_and_clip(tokens as f32 / defence.pairs.max(1) as f32, None);
        let clean = sft::loss(model, &wanted)?;
        tracing::debug!(margin = defence.margin / defence.pairs.max(1) as f64, clean = clean.mean(), "lat");
        Ok(clean)
    })
}

/// Shifts under which the model prefers the unwanted replies.
fn attack(model: &mut Llama, pairs: &Pairs, items: &[usize], config: LatConfig) -> Result<Vec<Shift>> {
    let rows = pairs.rows(items);
    let (batch, _) = sft::batch(&rows, 0.0);
    let (places, d) = (prompt_places(&rows), model.config.hidden_size);
    let blocks = model.config.num_hidden_layers as f64;
    let mut layers: Vec<usize> = DEPTHS.iter().map(|depth| (depth * blocks) as usize).collect();
    layers.dedup();
    let shift = |layer| Shift { layer, values: Buffer::zeros(batch.len() * d) };
    let mut shifts: Vec<Shift> = layers.into_iter().map(shift).collect();
    for _ in 0..config.steps {
        let (_, gradients) = pairs.attack(model, items, &shifts)?;
        for (shift, gradient) in shifts.iter_mut().zip(&gradients) {
            let radius = config.radius * pairs.typical_length(shift.layer);
            for row in places.keys().map(|row| row * d..(row + 1) * d) {
                let x = &mut shift.values[row.clone()];
                step_against(x, &gradient[row], 2.0 * radius / config.steps as f32);
                shorten(x, radius);
            }
        }
    }
    Ok(shifts)
}
