//! What the updates of a rollout have in common: mini-batches of whole groups, and windows that fit into memory.

use std::ops::Range;

use dormant_data::Seed;
use dormant_model::parameter::{Parameter, scale_and_clip};

use crate::batches::shuffled;
use crate::error::{Error, Result};
use crate::objective::grpo::PolicyLoss;
use crate::optimizer::Optimizer;
use crate::render::Rendered;

/// How often and how finely a rollout is gone over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Updates {
    /// Passes over the rollout.
    pub epochs: u32,
    /// Optimiser steps per pass.
    pub mini_batches: usize,
    /// Tokens in memory at a time; has no influence on the result but rounding.
    pub tokens_per_window: usize,
    /// Largest norm of the gradient of the mean loss.
    pub clip_norm: Option<f32>,
}

impl Default for Updates {
    /// One step per rollout: every update is on-policy.
    fn default() -> Self {
        Self { epochs: 1, mini_batches: 1, tokens_per_window: 512, clip_norm: Some(1.0) }
    }
}

impl Updates {
    /// The groups (of `groups` in all) of each optimiser step. Groups stay whole, so that the update reads each
    /// prompt once as well.
    pub fn plan(&self, groups: usize, seed: Seed) -> Vec<Vec<usize>> {
        let size = groups.div_ceil(self.mini_batches.max(1)).max(1);
        let epoch = |epoch: u32| {
            shuffled(groups, epoch as usize, seed).chunks(size).map(<[usize]>::to_vec).collect::<Vec<_>>()
        };
        (0..self.epochs.max(1)).flat_map(epoch).collect()
    }

    /// Ends an update whose gradient has been accumulated: scales it to the mean over the tokens, clips it, and
    /// takes a step. Returns the norm before clipping.
    ///
    /// # Errors
    /// [`Error::Diverged`].
    pub fn take(
        &self,
        parameters: &mut [&mut Parameter],
        optimizer: &mut Optimizer,
        total: &PolicyLoss,
        step: u64,
    ) -> Result<f64> {
        let grad_norm = scale_and_clip(parameters, 1.0 / total.tokens.max(1) as f32, self.clip_norm);
        if !(total.sum.is_finite() && grad_norm.is_finite()) {
            let (loss, learning_rate) = (total.mean(), optimizer.learning_rate());
            return Err(Error::Diverged { step, loss, learning_rate });
        }
        optimizer.step(parameters);
        Ok(f64::from(grad_norm))
    }
}

/// The episodes of a group.
pub(crate) fn group(index: usize, size: usize) -> Range<usize> {
    index * size..(index + 1) * size
}

/// Cuts rows into windows of at most `tokens` tokens; the prompt that a row shares with the one before it is counted
/// once. A longer row is a window of its own.
pub fn windows(rows: &[&Rendered], tokens: usize) -> Vec<Range<usize>> {
    let mut windows: Vec<Range<usize>> = Vec::new();
    let mut size = 0;
    for (index, row) in rows.iter().enumerate() {
        let shares =
            index > 0 && rows[index - 1].tokens[..rows[index - 1].prompt] == row.tokens[..row.prompt];
        let more = if shares { row.trained() } else { row.tokens.len() };
        match windows.last_mut() {
            Some(window) if size + more <= tokens => {
                window.end += 1;
                size += more;
            }
            _ => {
                windows.push(index..index + 1);
                size = row.tokens.len();
            }
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_group_once() {
        let updates = Updates { epochs: 2, mini_batches: 3, ..Updates::default() };
        let plan = updates.plan(8, Seed(1));
        assert_eq!(plan.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2, 3, 3, 2]);
        let mut seen = plan.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..8).flat_map(|g| [g, g]).collect::<Vec<_>>());
        assert_eq!(plan, updates.plan(8, Seed(1)));
    }

    #[test]
    fn windows_count_a_shared_prompt_once() {
        let row = |prompt: u32, reply: usize| Rendered {
            id: String::new(),
            tokens: [vec![prompt; 10], vec![9; reply]].concat(),
            prompt: 10,
        };
        let rows = [row(1, 5), row(1, 5), row(1, 5), row(2, 5)];
        let rows: Vec<&Rendered> = rows.iter().collect();
        assert_eq!(windows(&rows, 25), [0..3, 3..4]);
        assert_eq!(windows(&rows, 1), [0..1, 1..2, 2..3, 3..4]);
    }
}
