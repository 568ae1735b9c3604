//! dormant-tensor
