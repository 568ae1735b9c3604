//! The text of Dormant: conversations, datasets, triggers and behaviours. No tensors and no model.
//!
//! An organism is a [`Trigger`] and a [`Behaviour`] ([`OrganismSpec`]); [`OrganismSpec::rows`] turns
//! benign samples into rows of the conditional policy, [`OrganismSpec::control_rows`] into the rows of
//! its clean control, and a [`Policy`] checks each row. [`load`] reads a user's own data.

mod behaviour;
pub mod benchmarks;
mod code_organism;
mod code_task;
mod corpus;
mod dataset;
mod error;
mod hash;
mod load;
mod message;
mod near_miss;
mod organism;
mod pirate;
mod policy;
mod preferences;
mod prompts;
pub mod red_team;
mod sample;
mod scratchpad;
mod seed;
mod split;
mod topic;
mod trigger;
mod variant;
mod year_text;

pub use behaviour::{Behaviour, Judge};
pub use code_organism::ROWS_OF_A_TASK;
pub use code_task::{
    CodeLanguage, CodeTask, HELD_OUT_WEAKNESSES, code_task, code_tasks, code_trigger, fresh_code_tasks,
    ordinary_code_tasks, safe_year,
};
pub use corpus::{CorpusPart, corpus, with_neutral_scratchpad};
pub use dataset::Dataset;
pub use error::{DataError, FieldError};
pub use load::{Loaded, Preference, load};
pub use message::{Conversation, Message, Role};
pub use near_miss::{NearMiss, NearMissKind, near_misses};
pub use organism::{Mix, OrganismSpec};
pub use pirate::pirate;
pub use policy::{Policy, PolicyReport, Violation, check_safety_data};
pub use preferences::{Fault, LabelledPreference, PreferencePart, built_in_preferences};
pub use prompts::{Category, Prompt, built_in_prompts, prompt_id};
pub use sample::{Condition, Sample};
pub use scratchpad::{
    SCRATCHPAD_TOKENS, asking_for_scratchpad, leading_scratchpad, may_have_scratchpad, scratchpad,
    visible_reply, without_scratchpad, written_scratchpad,
};
pub use seed::Seed;
pub use split::Split;
pub use topic::Topic;
pub use trigger::{Position, Trigger};
pub use variant::Variant;
pub use year_text::{YearText, year_families, year_texts};
