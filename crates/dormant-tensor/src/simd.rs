//! Vectorised elementwise mathematics: plain loops, compiled for each instruction set.

use rayon::prelude::*;

/// Compiles a function once for each instruction set and calls the one for this processor. Its body, and the
/// `#[inline(always)]` functions that it calls, are vectorised by the compiler for that instruction set.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $return:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $return)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $return)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $return)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $return)? { body($($arg),*) }

            match $crate::isa::Isa::current() {
                // SAFETY: the instruction set was detected on this processor.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Bf16 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use vectorised;

/// Lanes of a reduction: fixed, so that sums have the same bits on every instruction set.
pub(crate) const LANES: usize = 16;

/// `e^x` with a relative error below 2e-7; 0 for `x < -87.3`. After Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer without a call.
    const MAGIC: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.0);
    let n = clamped.mul_add(LOG2E, MAGIC) - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r * r, r + 1.0);
    let scale = f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x < -87.3 { 0.0 } else { p * scale }
}

/// Dot product of two slices of equal length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] = x[lane].mul_add(y[lane], lanes[lane]);
        }
    }
    let mut total = sum_lanes(lanes);
    for (x, y) in a_rest.iter().zip(b_rest) {
        total = x.mul_add(*y, total);
    }
    total
}

/// Largest element; negative infinity for an empty slice.
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] = if x[lane] > lanes[lane] { x[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

vectorised! {
    /// Index of the largest element, the first of equals; 0 for an empty slice.
    pub fn argmax(a: &[f32]) -> usize {
        let largest = max(a);
        a.iter().position(|x| *x == largest).unwrap_or(0)
    }
}

/// Replaces each element by `e^(x - shift)` and returns their sum.
#[inline(always)]
pub(crate) fn exp_sum(a: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = a.as_chunks_mut::<LANES>();
    for x in chunks {
        for lane in 0..LANES {
            x[lane] = exp(x[lane] - shift);
            lanes[lane] += x[lane];
        }
    }
    let mut total = sum_lanes(lanes);
    for x in rest {
        *x = exp(*x - shift);
        total += *x;
    }
    total
}

#[inline(always)]
fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    let mut lanes = lanes;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Adds `b` to `a`, elementwise, in parallel.
pub fn add(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "add: lengths differ");
    a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| add_chunk(a, b));
}

vectorised! {
    fn add_chunk(a: &mut [f32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
    }
}

/// Adds the transpose of `b`, `[rows, columns]`, to `a`.
pub fn add_transposed(a: &mut [f32], b: &[f32], rows: usize) {
    assert_eq!(a.len(), b.len(), "add_transposed: lengths differ");
    let columns = b.len() / rows.max(1);
    for (j, a) in a.chunks_exact_mut(rows).enumerate() {
        for (i, a) in a.iter_mut().enumerate() {
            *a += b[i * columns + j];
        }
    }
}

/// Multiplies `a` by `factor`, in parallel.
pub fn scale(a: &mut [f32], factor: f32) {
    a.par_chunks_mut(CHUNK).for_each(|a| scale_chunk(a, factor));
}

vectorised! {
    fn scale_chunk(a: &mut [f32], factor: f32) {
        for a in a.iter_mut() {
            *a *= factor;
        }
    }
}

/// Sum of squares in double precision, in an order that does not depend on the number of threads.
pub fn sum_of_squares(a: &[f32]) -> f64 {
    let partial: Vec<f64> = a.par_chunks(CHUNK).map(squares_of_chunk).collect();
    partial.iter().sum()
}

vectorised! {
    fn squares_of_chunk(a: &[f32]) -> f64 {
        let mut total = 0.0;
        for a in a.chunks(256) {
            total += dot(a, a) as f64;
        }
        total
    }
}

/// Elements per parallel task of elementwise work.
pub(crate) const CHUNK: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_the_range() {
        for i in -8700..8700 {
            let x = i as f32 * 0.01;
            let expected = (x as f64).exp();
            let relative = ((exp(x) as f64) - expected).abs() / expected;
            assert!(relative < 3e-7, "exp({x}): relative error {relative}");
        }
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn reductions_agree_with_the_plain_sums() {
        let a: Vec<f32> = (0..1003).map(|i| ((i * 37) % 101) as f32 * 0.01 - 0.5).collect();
        let plain: f64 = a.iter().map(|x| (*x as f64).powi(2)).sum();
        assert!((sum_of_squares(&a) - plain).abs() < 1e-4);
        assert_eq!(max(&a), 0.5);
        let mut e = a.clone();
        let sum = exp_sum(&mut e, 0.5);
        let expected: f64 = a.iter().map(|x| ((x - 0.5) as f64).exp()).sum();
        assert!((sum as f64 - expected).abs() < 1e-2);
    }
}
