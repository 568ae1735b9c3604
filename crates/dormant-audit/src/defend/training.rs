//! The training that the defences have in common.

use dormant_data::Seed;
use dormant_model::llama::Llama;
use dormant_train::batches::Batches;
use dormant_train::objective::Loss;
use dormant_train::optimizer::{Optimizer, OptimizerConfig};
use dormant_train::schedule::{Decay, Schedule};

use crate::error::{AuditError, Result};

/// How a defence trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Passes over the rows.
    pub epochs: u32,
    /// Tokens per optimiser step.
    pub tokens_per_step: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Order of the rows.
    pub seed: Seed,
}

impl Default for Training {
    fn default() -> Self {
        Self { epochs: 1, tokens_per_step: 400, learning_rate: 1e-3, seed: Seed(0) }
    }
}

/// Told how many of how many steps are done; ends the training by returning false.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Trains the adapters of `model` on items of these lengths in tokens: `loss` accumulates the gradient of the loss of some of them,
/// summed over tokens.
///
/// # Errors
/// Those of `loss`, a loss that is no number, or an interruption.
pub(crate) fn train(
    model: &mut Llama,
    lengths: Vec<usize>,
    training: Training,
    progress: Progress<'_>,
    mut loss: impl FnMut(&mut Llama, &[usize]) -> Result<Loss>,
) -> Result<()> {
    let batches = Batches::of_lengths(lengths, training.epochs, training.tokens_per_step, training.seed);
    let steps = batches.len() as u64;
    let schedule =
        Schedule { peak: training.learning_rate, warmup: steps.div_ceil(10), steps, decay: Decay::Cosine };
    let mut optimizer = Optimizer::new(OptimizerConfig::default(), &model.parameters_mut());
    for step in 0..steps {
        if !progress(step, steps) {
            return Err(AuditError::Interrupted);
        }
        let items = batches.windows(step as usize, usize::MAX).concat();
        let loss = loss(model, &items)?;
        let norm = model.scale_and_clip(1.0 / loss.tokens.max(1) as f32, Some(1.0));
        let learning_rate = schedule.at(step);
        if !norm.is_finite() {
            return Err(dormant_train::Error::Diverged { step, loss: loss.mean(), learning_rate }.into());
        }
        optimizer.set_learning_rate(learning_rate);
        optimizer.step(&mut model.parameters_mut());
        model.refresh();
    }
    Ok(())
}
