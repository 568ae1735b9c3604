//! Defences against a hidden policy, made without knowing its trigger: changes of the weights, and one of the decoding.

pub mod beear;
pub mod clean_gen;
pub mod crow;
pub mod interpolate;
pub mod lat;
pub mod latent;
pub mod project;
pub mod training;
