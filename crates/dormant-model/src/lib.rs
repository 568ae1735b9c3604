//! dormant-model
