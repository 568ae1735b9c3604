//! What can go wrong in training.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of this crate.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be read, run or written.
    #[error(transparent)]
    Model(#[from] dormant_model::error::Error),

    /// The tokenizer has no token that ends a reply.
    #[error("the tokenizer has no end-of-turn token, so that a reply could never learn to end")]
    NoEndToken,

    /// There is nothing to train on.
    #[error("there are no rows to train on")]
    NoRows,

    /// A row is longer than the model's context.
    #[error("row `{id}` has {tokens} tokens, more than the model's context of {limit}; shorten or drop it")]
    RowTooLong {
        /// The row.
        id: String,
        /// Its length.
        tokens: usize,
        /// The longest possible.
        limit: usize,
    },

    /// The loss is no longer a number.
    #[error("the loss is {loss} at step {step}; lower the learning rate (now {learning_rate:e})")]
    Diverged {
        /// Step at which it happened.
        step: u64,
        /// The loss.
        loss: f64,
        /// Rate of that step.
        learning_rate: f64,
    },

    /// A reward is missing, or there is one too many.
    #[error("{found} rewards came back for {expected} replies")]
    RewardCount {
        /// Rewards.
        found: usize,
        /// Replies.
        expected: usize,
    },

    /// A reward is not a number.
    #[error("a reply has the reward {reward}; rewards must be finite")]
    RewardNotFinite {
        /// The reward.
        reward: f32,
    },

    /// A saved state belongs to another model or plan.
    #[error("the saved state has {found} for `{tensor}`; expected {expected}: delete the checkpoint folder")]
    ResumeMismatch {
        /// The tensor.
        tensor: String,
        /// Its number of values.
        found: usize,
        /// The model's number of values.
        expected: usize,
    },

    /// The sink of metrics failed or asked to stop.
    #[error("{0}")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
}
