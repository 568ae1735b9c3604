//! The real binary on the tiny model: measuring an adapter of PEFT's, wrong inputs, whole experiments that are killed
//! and resumed. Nothing here uses the network.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod adapter;
mod code;
mod committed;
mod export;
mod questions;
mod rederived;
mod resume;
mod scale;
mod scan;
mod shipped;
mod workspace;
mod wrong_inputs;
