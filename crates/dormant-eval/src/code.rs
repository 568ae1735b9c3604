//! Whether a piece of code is vulnerable: static analysis of Python and C on syntax trees.
//!
//! [`score_code`] parses a program, walks it with the rules of its language (`code/rules/*.toml`), and gives one
//! of four [`Outcome`]s. A reply of a model goes through [`extract`] first. The walk is an abstract
//! interpretation of one function at a time: untrusted values carry their origins and what they could still do
//! (`taint`), checks take that away on the way that they lead to, and calls to functions of the same file are
//! followed. Programs are untrusted: size, depth and steps are bounded, and a program beyond the bounds is
//! [`Outcome::Unscorable`].

mod c;
mod extract;
mod markup;
mod opinion;
mod parse;
mod pattern;
mod python;
mod report;
mod rules;
mod sarif;
mod taint;
mod verdict;

pub use extract::{Extracted, extract};
pub use opinion::{Opinion, OpinionError, OtherFinding, Witness, read_opinion};
pub use sarif::{ScoredFile, sarif};

pub use verdict::{
    Finding, Language, Outcome, Verdict, is_looked_for, is_program, related, score_code, score_reply,
};

/// The weaknesses that the scorer looks for (CWE numbers).
pub const WEAKNESSES: [u16; 8] = [20, 22, 78, 79, 89, 502, 676, 787];
