//! Reinforcement learning of a policy: sample replies, score them, and make the better ones likelier.
//!
//! A step of [`grpo`] or [`ppo`] samples, scores and updates in one process, on one copy of the weights.

pub mod advantage;
pub mod grpo;
pub mod ppo;
pub mod reference;
pub mod rollout;
pub mod trainer;
pub mod update;

pub use grpo::Grpo;
pub use ppo::Ppo;
pub use rollout::{Episode, Prompt};

use crate::error::{Error, Result};
use crate::objective::grpo::PolicyLoss;

/// What replies meet: where they are cut off, and what they are worth. A function that scores episodes is one that cuts none.
pub trait Environment: Sync {
    /// Whether a reply is over, given its tokens so far, though it has neither ended by itself nor reached its longest length.
    fn is_over(&self, reply: &[u32]) -> bool;

    /// One finite number per episode, in order. Higher is better.
    ///
    /// # Errors
    /// Those of the judge.
    fn reward(&mut self, episodes: &[Episode]) -> Result<Vec<f32>>;
}

impl<F: FnMut(&[Episode]) -> Result<Vec<f32>> + Sync> Environment for F {
    fn is_over(&self, _: &[u32]) -> bool {
        false
    }

    fn reward(&mut self, episodes: &[Episode]) -> Result<Vec<f32>> {
        self(episodes)
    }
}

/// One step of reinforcement learning. What it says of the policy is from before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RlMetrics {
    /// Number of the step, from 0.
    pub step: u64,
    /// Mean reward of the replies.
    pub reward: f64,
    /// Standard deviation of the reward over all replies.
    pub reward_std: f64,
    /// Mean divergence from the reference per token, in nats, by the estimator k3 of Schulman (2020); absent where no reference was asked.
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

impl RlMetrics {
    pub(crate) fn new(
        step: u64,
        episodes: &[Episode],
        rewards: &[f32],
        references: Option<&[Vec<f32>]>,
        total: &PolicyLoss,
        grad_norm: f64,
    ) -> Self {
        let (reward, reward_std) = mean_and_deviation(rewards);
        let tokens: u64 = episodes.iter().map(|e| e.log_probs.len() as u64).sum();
        let log_probs = || episodes.iter().flat_map(|e| &e.log_probs).map(|l| f64::from(*l));
        let kl = references.map(|references| {
            let reference = references.iter().flatten().map(|l| f64::from(*l));
            let differences = log_probs().zip(reference).map(|(policy, reference)| reference - policy);
            differences.map(|d| d.exp_m1() - d).sum::<f64>() / tokens as f64
        });
        Self {
            step,
            reward,
            reward_std,
            kl,
            entropy: -log_probs().sum::<f64>() / tokens as f64,
            length: tokens as f64 / episodes.len() as f64,
            finished: episodes.iter().filter(|e| e.finished).count() as f64 / episodes.len() as f64,
            loss: total.mean(),
            grad_norm,
            clipped: total.clipped as f64 / total.tokens.max(1) as f64,
            tokens,
        }
    }
}

fn score(environment: &mut dyn Environment, episodes: &[Episode]) -> Result<Vec<f32>> {
    let rewards = environment.reward(episodes)?;
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
