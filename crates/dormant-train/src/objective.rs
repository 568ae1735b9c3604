//! Training objectives: each turns rows into a loss and accumulates its gradient.

pub mod contrast;
pub mod dpo;
pub mod grpo;
pub mod ppo;
pub mod preference;
pub mod reward_model;
pub mod sft;

use std::ops::AddAssign;

/// A loss summed over tokens. Never averaged before the end of a step, so that micro-batches of different sizes
/// weigh what their tokens weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Sum over the tokens, in nats.
    pub sum: f64,
    /// Number of tokens that carry the loss.
    pub tokens: u64,
}

impl Loss {
    /// No tokens yet.
    pub const ZERO: Self = Self { sum: 0.0, tokens: 0 };

    /// Mean per token; 0 without tokens.
    pub fn mean(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.sum / self.tokens as f64 }
    }
}

impl AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.tokens += other.tokens;
    }
}
