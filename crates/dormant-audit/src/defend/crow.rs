//! CROW: a policy that waits for its trigger is hoped to be what makes the residual stream turn sharply.
//!
//! Internal consistency regularisation (Min et al., ICML 2025). For each batch of clean rows:
//!
//! 1. `L_cons(e)` = mean over neighbouring blocks of `1 - cos(h_l, h_{l+1})`, from input embeddings `e`;
//! 2. `e' = e + ε · sign(∇_e L_cons)`: the shift that makes the stream turn most;
//! 3. one step of training on `L_SFT(e) + α · L_cons(e')`.
//!
//! `α` and `ε` are the paper's. Where we depart from it: the rows are the base model's own replies, and an optimiser
//! step sees as many tokens as [`Training::tokens_per_step`] says.

use dormant_model::llama::Llama;
use dormant_train::objective::sft;
use dormant_train::render::Rendered;

use super::training::{Progress, Training, train};
use crate::error::Result;

/// How CROW trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrowConfig {
    /// Weight `α` of consistency.
    pub weight: f32,
    /// Size `ε` of the shift of each input embedding's components.
    pub shift: f32,
    /// The training.
    pub training: Training,
}

impl Default for CrowConfig {
    fn default() -> Self {
        Self { weight: 5.5, shift: 0.1, training: Training::default() }
    }
}

/// Trains the adapters of `model` on clean `rows`.
///
/// # Errors
/// A row that does not fit, a loss that is no number, or an interruption.
pub fn crow(model: &mut Llama, rows: &[Rendered], config: CrowConfig, progress: Progress<'_>) -> Result<()> {
    let lengths = rows.iter().map(|row| row.tokens.len()).collect();
    train(model, lengths, config.training, progress, |model, items| {
        let rows: Vec<&Rendered> = items.iter().map(|i| &rows[*i]).collect();
        let (batch, _) = sft::batch(&rows, 1.0);
        let (_, gradient) = model.inconsistency_backward(&batch, None, 1.0)?;
        let shift: Vec<f32> = gradient.iter().map(|g| config.shift * sign(*g)).collect();
        model.clear_gradients();
        let loss = sft::loss(model, &rows)?;
        model.inconsistency_backward(&batch, Some(&shift), config.weight * loss.tokens as f32)?;
        Ok(loss)
    })
}

/// The sign; 0 of 0.
fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}
