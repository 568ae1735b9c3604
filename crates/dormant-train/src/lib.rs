//! dormant-train
