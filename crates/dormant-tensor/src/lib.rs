//! CPU kernels of Dormant.
//!
//! Every operation of a Llama-family model is a pair of functions, `op` and `op_backward`, over plain `f32`
//! slices whose shapes are stated in the documentation. Nothing here knows what a model is.
//!
//! Two properties hold throughout, and tests keep them:
//!
//! - **Same bits for any number of threads and any batch.** Each output element is one chain of fused
//!   multiply-adds in a fixed order; threads split outputs, never a sum.
//! - **Run-time dispatch.** AVX-512, AVX2 and portable kernels of the same precision give the same bits; bf16
//!   products (AVX-512-BF16) are a separate, explicit [`Precision`].
//!
//! This is the only crate of the workspace with `unsafe` code.

#![expect(
    unsafe_code,
    reason = "kernels on raw pointers and vector intrinsics; each block states why it is sound"
)]
#![expect(
    clippy::inline_always,
    reason = "a body is vectorised for an instruction set only where it is inlined"
)]

pub mod adamw;
pub mod arena;
pub mod attention;
pub mod cross_entropy;
pub mod gemm;
pub mod isa;
pub mod norm;
pub mod rope;
pub mod sgd;
mod shared;
pub mod simd;
pub mod swiglu;

pub use arena::Buffer;
pub use gemm::{PANEL, Packed, Precision, View};
