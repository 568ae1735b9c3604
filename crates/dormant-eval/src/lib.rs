//! dormant-eval
