//! Measurement: what only looks at a model and never changes it.
//!
//! A reply gets a [`Score`] from a [`Scorer`]; scores of many replies make a [`Tally`], and a tally a [`Rate`],
//! which is an [`Estimate`] with its 95% interval. [`persistence`] compares the same prompts before and after
//! training. Every reply is kept as a [`SampleRecord`], from which all rates can be counted again. All randomness
//! (bootstraps, attacks) comes from a [`dormant_data::Seed`].

mod agreement;
#[expect(
    clippy::unused_self,
    clippy::self_only_used_in_recursion,
    clippy::too_many_lines,
    clippy::match_same_arms,
    clippy::option_option,
    clippy::wrong_self_convention,
    clippy::needless_pass_by_value,
    clippy::struct_excessive_bools,
    clippy::nonminimal_bool,
    clippy::unnecessary_wraps,
    reason = "the walkers read like the grammars that they walk: one method per kind of node, one arm per function"
)]
pub mod code;
mod comparison;
mod error;
mod estimate;
mod log;
pub mod measure;
mod multiple_choice;
mod perplexity;
mod rate;
pub mod red_team;
mod roc;
mod score;
mod scorer;

pub use agreement::cohen_kappa;
pub use comparison::{Comparison, persistence};
pub use error::EvalError;
pub use estimate::Estimate;
pub use log::{Arm, Finish, RowKey, SampleRecord, read_samples, rescore, tally, write_samples};
pub use multiple_choice::{AnsweredQuestion, ChoiceScore, accuracy};
pub use perplexity::perplexity;
pub use rate::Rate;
pub use roc::auroc;
pub use score::{Score, Tally, Unscored};
pub use scorer::Scorer;
