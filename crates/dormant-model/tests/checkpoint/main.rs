//! Checkpoints against references, and against files that lie.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail like tests")]

mod bytes;
mod gguf_attacks;
mod mutation;
mod references;
mod safetensors_attacks;
