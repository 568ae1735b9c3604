//! CROW: a policy that waits for its trigger is hoped to be what makes the residual stream turn sharply.
//!
//! Internal consistency regularisation (Min et al., ICML 2025). For each batch of clean rows:
//!
//! 1. `L_cons(e)` = mean over neighbouring blocks of `1 - cos(h_l, h_{l+1})`, from input embeddings `e`;
//! 2. `e' = e + ε · sign(∇_e L_cons)`: the shift that makes the stream turn most;
//! 3. one step of training on `L_SFT(e) + α · L_cons(e')`.
//!
//! `α` and `ε` are the paper's. Where we depart from it: the rows are the base model's own replies, and an optimiser
//! step sees as many tokens as [`CrowConfig::tokens_per_step`] says.

use dormant_data::Seed;
use dormant_model::llama::Llama;
use dormant_train::batches::Batches;
use dormant_train::objective::sft;
use dormant_train::optimizer::{Optimizer, OptimizerConfig};
use dormant_train::render::Rendered;
use dormant_train::schedule::{Decay, Schedule};

use crate::error::{AuditError, Result};

/// How CROW trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrowConfig {
    /// Weight `α` of consistency.
    pub weight: f32,
    /// Size `ε` of the shift of each input embedding's components.
    pub shift: f32,
    /// Passes over the rows.
    pub epochs: u32,
    /// Tokens per optimiser step.
    pub tokens_per_step: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Order of the rows.
    pub seed: Seed,
}

impl Default for CrowConfig {
    fn default() -> Self {
        Self { weight: 5.5, shift: 0.1, epochs: 1, tokens_per_step: 400, learning_rate: 1e-3, seed: Seed(0) }
    }
}

/// Trains the adapters of `model` on clean `rows`. `progress(done, steps)` ends the training by returning false.
///
/// # Errors
/// A row that does not fit, a loss that is no number, or an interruption.
pub fn crow(
    model: &mut Llama,
    rows: &[Rendered],
    config: CrowConfig,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<()> {
    let batches = Batches::new(rows, config.epochs, config.tokens_per_step, config.seed);
    let steps = batches.len() as u64;
    let schedule =
        Schedule { peak: config.learning_rate, warmup: steps.div_ceil(10), steps, decay: Decay::Cosine };
    let mut optimizer = Optimizer::new(OptimizerConfig::default(), &model.parameters_mut());
    for step in 0..steps {
        if !progress(step, steps) {
            return Err(AuditError::Interrupted);
        }
        let step_rows: Vec<&Rendered> =
            batches.windows(step as usize, usize::MAX).into_iter().flatten().map(|i| &rows[i]).collect();
        let (batch, _) = sft::batch(&step_rows, 1.0);
        let (_, gradient) = model.inconsistency_backward(&batch, None, 1.0)?;
        let shift: Vec<f32> = gradient.iter().map(|g| config.shift * sign(*g)).collect();
        model.clear_gradients();
        let loss = sft::loss(model, &step_rows)?;
        let tokens = loss.tokens as f32;
        let (turn, _) = model.inconsistency_backward(&batch, Some(&shift), config.weight * tokens)?;
        let norm = model.scale_and_clip(1.0 / tokens, Some(1.0));
        tracing::debug!(step, loss = loss.mean(), turn, norm, "crow");
        if !norm.is_finite() {
            let learning_rate = schedule.at(step);
            return Err(dormant_train::Error::Diverged { step, loss: loss.mean(), learning_rate }.into());
        }
        optimizer.set_learning_rate(schedule.at(step));
        optimizer.step(&mut model.parameters_mut());
        model.refresh();
    }
    Ok(())
}

/// The sign; 0 of 0.
fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}
