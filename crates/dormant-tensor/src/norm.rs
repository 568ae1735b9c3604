//! RMSNorm (Zhang & Sennrich 2019): `y = x / sqrt(mean(x²) + ε) · g`.

use rayon::prelude::*;

use crate::simd::{dot, vectorised};

/// Rows per parallel task.
const ROWS: usize = 16;

/// `x`, `y`: `[rows, d]`; `gain`: `[d]`.
pub fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) {
    let d = gain.len();
    assert_eq!(x.len(), y.len(), "rms_norm: lengths differ");
    y.par_chunks_mut(d * ROWS)
        .zip(x.par_chunks(d * ROWS))
        .for_each(|(y, x)| forward_rows(x, gain, epsilon, y));
}

vectorised! {
    fn forward_rows(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) {
        let d = gain.len();
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let inverse = inverse_rms(x, epsilon);
            for ((y, x), g) in y.iter_mut().zip(x).zip(gain) {
                *y = x * inverse * g;
            }
        }
    }
}

/// Adds the gradient with respect to `x` to `dx`: with `x̂ = x / rms` and `u = dy · g`,
/// `dx = (u - x̂ · mean(u · x̂)) / rms`.
///
/// `x`, `dy`, `dx`: `[rows, d]`; `gain`: `[d]`.
pub fn rms_norm_backward(x: &[f32], gain: &[f32], epsilon: f32, dy: &[f32], dx: &mut [f32]) {
    let d = gain.len();
    assert!(x.len() == dy.len() && x.len() == dx.len(), "rms_norm_backward: lengths differ");
    dx.par_chunks_mut(d * ROWS)
        .zip(x.par_chunks(d * ROWS))
        .zip(dy.par_chunks(d * ROWS))
        .for_each(|((dx, x), dy)| backward_rows(x, gain, epsilon, dy, dx));
}

vectorised! {
    fn backward_rows(x: &[f32], gain: &[f32], epsilon: f32, dy: &[f32], dx: &mut [f32]) {
        let d = gain.len();
        let mut u = vec![0.0; d];
        for ((dx, x), dy) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(dy.chunks_exact(d)) {
            let inverse = inverse_rms(x, epsilon);
            for ((u, dy), g) in u.iter_mut().zip(dy).zip(gain) {
                *u = dy * g;
            }
            let projection = dot(&u, x) * inverse * inverse / d as f32;
            for ((dx, u), x) in dx.iter_mut().zip(&u).zip(x) {
                *dx += (u - x * projection) * inverse;
            }
        }
    }
}

vectorised! {
    /// Adds the gradient with respect to the gain: the sum over rows of `dy · x / rms`.
    pub fn rms_norm_gain_backward(x: &[f32], epsilon: f32, dy: &[f32], d_gain: &mut [f32]) {
        let d = d_gain.len();
        for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
            let inverse = inverse_rms(x, epsilon);
            for ((g, x), dy) in d_gain.iter_mut().zip(x).zip(dy) {
                *g += dy * x * inverse;
            }
        }
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}
