//! Changes of a fine-tune's weights that may take a hidden policy out, made without knowing it.

pub mod interpolate;
pub mod project;
