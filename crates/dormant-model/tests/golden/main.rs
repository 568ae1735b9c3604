//! The engine against PyTorch: logits, losses and all gradients (see `fixtures/golden/README.md`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod numbers;
mod smollm2;
mod tiny;
