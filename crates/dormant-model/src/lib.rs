//! dormant-model

pub mod atomic;
pub mod checkpoint;
pub mod config;
pub mod error;
