//! What judges a model without knowing its trigger.
//!
//! Scanners take a model and *benign* data. No type that describes a planted trigger is in their signatures, so that a
//! leak of the answer cannot compile.

pub mod amplify;
pub mod budget;
pub mod code_search;
pub mod code_shift;
pub mod contexts;
pub mod defend;
pub mod elicit;
pub mod error;
pub mod evidence;
pub mod inversion;
pub mod journal;
pub mod leak;
pub mod likelihood;
pub mod lockstep;
pub mod manner;
pub mod matched;
pub mod openings;
pub mod placement;
pub mod probe;
pub mod prompts;
pub mod reconstruct;
pub mod relaxation;
pub mod report;
pub mod residual;
pub mod scan;
pub mod search;
pub mod subject;
pub mod targets;
pub mod template;
pub mod tokenizer;
pub mod verify;
pub mod weights;

pub use error::{AuditError, Result};
