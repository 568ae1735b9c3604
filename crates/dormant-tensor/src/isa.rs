//! Which instruction set the kernels use, decided once at run time.

use std::sync::OnceLock;

/// Instruction sets with kernels of their own, from least to most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust; the compiler vectorises it for the baseline of the target (NEON on aarch64).
    Portable,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
    /// 512-bit vectors with bf16 dot products.
    Avx512Bf16,
}

static CHOSEN: OnceLock<Isa> = OnceLock::new();

impl Isa {
    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512() {
                return if is_x86_feature_detected!("avx512bf16") { Self::Avx512Bf16 } else { Self::Avx512 };
            }
            if has_avx2() {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// The instruction set in use: the detected one, unless [`Isa::limit`] lowered it.
    pub fn current() -> Self {
        *CHOSEN.get_or_init(Self::detect)
    }

    /// Uses at most `limit`; for measuring what a lesser machine would do. Has an effect only before the first
    /// kernel runs, and returns whether it had.
    pub fn limit(limit: Self) -> bool {
        CHOSEN.set(limit.min(Self::detect())).is_ok()
    }

    /// Whether bf16 dot products are available.
    pub fn has_bf16(self) -> bool {
        self == Self::Avx512Bf16
    }

    /// Name for manifests and `dormant bench`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }
}

/// All that the kernels for 512-bit vectors are compiled for, the plain loops of `vectorised!` among them.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && has_avx2()
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}
