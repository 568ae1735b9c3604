//! Defences against a hidden policy, made without knowing it: changes of the weights, and one of the decoding.

pub mod clean_gen;
pub mod crow;
pub mod interpolate;
pub mod project;
