//! Everything that changes weights: rendering rows to tokens and a loss mask, batches, optimisers, schedules, the
//! training loop and its objectives.
//!
//! The loop is [`trainer::train`]; an objective such as [`objective::sft`] is one function.

pub mod batches;
pub mod contrasts;
pub mod error;
pub mod objective;
pub mod optimizer;
pub mod pairs;
pub mod render;
pub mod resume;
pub mod rl;
pub mod schedule;
pub mod trainer;

pub use error::{Error, Result};
