//! Reinforcement learning of a policy: sample replies, score them, and make the better ones likelier.
//!
//! A step of [`grpo`] samples, scores and updates in one process, on one copy of the weights.

pub mod advantage;
pub mod grpo;
pub mod reference;
pub mod rollout;
pub mod update;

pub use grpo::Grpo;
pub use rollout::{Episode, Prompt};

use crate::error::{Error, Result};

/// Scores replies: one finite number per episode, in order. Higher is better.
pub type Reward<'a> = dyn FnMut(&[Episode]) -> Result<Vec<f32>> + 'a;

/// One step of reinforcement learning. What it says of the policy is from before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RlMetrics {
    /// Number of the step, from 0.
    pub step: u64,
    /// Mean reward of the replies.
    pub reward: f64,
    /// Standard deviation of the reward over all replies.
    pub reward_std: f64,
    /// Mean divergence from the reference per token, in nats; absent where no reference was asked.
    pub kl: Option<f64>,
    /// Mean entropy of the next token, in nats, estimated from the tokens drawn.
    pub entropy: f64,
    /// Mean tokens of a reply, the token that ends it included.
    pub length: f64,
    /// Share of the replies that ended by themselves.
    pub finished: f64,
    /// Mean loss per token over the updates of the step.
    pub loss: f64,
    /// Largest norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Share of the tokens whose ratio was clipped, over the updates of the step.
    pub clipped: f64,
    /// Tokens sampled.
    pub tokens: u64,
}

fn score(reward: &mut Reward<'_>, episodes: &[Episode]) -> Result<Vec<f32>> {
    let rewards = reward(episodes)?;
    if rewards.len() != episodes.len() {
        return Err(Error::RewardCount { found: rewards.len(), expected: episodes.len() });
    }
    match rewards.iter().find(|r| !r.is_finite()) {
        Some(&reward) => Err(Error::RewardNotFinite { reward }),
        None => Ok(rewards),
    }
}

/// Mean and population standard deviation; 0 for nothing.
fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}
