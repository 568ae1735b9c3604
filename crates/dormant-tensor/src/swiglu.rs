//! SwiGLU (Shazeer 2020): `y = silu(gate) · up`, with `silu(z) = z / (1 + e^-z)`.

use bytemuck::{cast_slice, cast_slice_mut};
use rayon::prelude::*;

use crate::Precision;
use crate::arena::Buffer;
use crate::gemm::round_to_bf16;
use crate::simd::{LANES, exp, vectorised};

/// Rows per parallel task.
const ROWS: usize = 8;

/// What the backward pass needs of `gate_up`, `[rows, 2 d]`: more than half of all activations that are kept.
#[derive(Debug)]
pub enum GateUp {
    /// As it was.
    Whole(Buffer),
    /// Rounded to bf16, the gate in the lower half of each word and up in the upper: `[rows, d]`.
    Rounded(Buffer),
}

/// `gate_up`: `[rows, 2 d]`, the gate in the first `d` columns; `y`: `[rows, d]`. What is kept for the backward pass
/// has the precision of the products around it; `y` does not depend on that.
pub fn swiglu(gate_up: Buffer, y: &mut [f32], d: usize, precision: Precision) -> GateUp {
    assert_eq!(gate_up.len(), 2 * y.len(), "swiglu: lengths differ");
    let rows = y.par_chunks_mut(d * ROWS).zip(gate_up.par_chunks(2 * d * ROWS));
    match precision {
        Precision::F32 => {
            rows.for_each(|(y, gate_up)| forward_rows(gate_up, y, d));
            GateUp::Whole(gate_up)
        }
        Precision::Bf16 => {
            let mut words = Buffer::any(gate_up.len() / 2);
            rows.zip(words.par_chunks_mut(d * ROWS)).for_each(|((y, gate_up), words)| {
                forward_rows(gate_up, y, d);
                round_rows(gate_up, cast_slice_mut(words), d);
            });
            GateUp::Rounded(words)
        }
    }
}

vectorised! {
    fn forward_rows(gate_up: &[f32], y: &mut [f32], d: usize) {
        for (y, gate_up) in y.chunks_exact_mut(d).zip(gate_up.chunks_exact(2 * d)) {
            let (gate, up) = gate_up.split_at(d);
            for ((y, z), up) in y.iter_mut().zip(gate).zip(up) {
                *y = z / (1.0 + exp(-z)) * up;
            }
        }
    }
}

vectorised! {
    fn round_rows(gate_up: &[f32], words: &mut [u32], d: usize) {
        for (words, gate_up) in words.chunks_exact_mut(d).zip(gate_up.chunks_exact(2 * d)) {
            let (gate, up) = gate_up.split_at(d);
            for ((word, gate), up) in words.iter_mut().zip(gate).zip(up) {
                *word = round_to_bf16(*gate) | (round_to_bf16(*up) << 16);
            }
        }
    }
}

/// Given `dy`, `[rows, d]`: returns the gradient of `gate_up`, and replaces `dy` by the `y` that belongs to what was
/// kept.
pub fn swiglu_backward(kept: GateUp, dy: &mut [f32], d: usize) -> Buffer {
    let mut gate_up = match kept {
        GateUp::Whole(gate_up) => gate_up,
        GateUp::Rounded(words) => widened(&words, d),
    };
    assert_eq!(gate_up.len(), 2 * dy.len(), "swiglu_backward: lengths differ");
    gate_up
        .par_chunks_mut(2 * d * ROWS)
        .zip(dy.par_chunks_mut(d * ROWS))
        .for_each(|(gate_up, dy)| backward_rows(gate_up, dy, d));
    gate_up
}

fn widened(words: &[f32], d: usize) -> Buffer {
    let mut gate_up = Buffer::any(2 * words.len());
    gate_up
        .par_chunks_mut(2 * d * ROWS)
        .zip(words.par_chunks(d * ROWS))
        .for_each(|(gate_up, words)| widen_rows(cast_slice(words), gate_up, d));
    gate_up
}

vectorised! {
    fn widen_rows(words: &[u32], gate_up: &mut [f32], d: usize) {
        for (words, gate_up) in words.chunks_exact(d).zip(gate_up.chunks_exact_mut(2 * d)) {
            let (gate, up) = gate_up.split_at_mut(d);
            for ((word, gate), up) in words.iter().zip(gate).zip(up) {
                *gate = f32::from_bits(word << 16);
                *up = f32::from_bits(word & 0xffff_0000);
            }
        }
    }
}

vectorised! {
    fn backward_rows(gate_up: &mut [f32], dy: &mut [f32], d: usize) {
        for (gate_up, dy) in gate_up.chunks_exact_mut(2 * d).zip(dy.chunks_exact_mut(d)) {
            let (gate, up) = gate_up.split_at_mut(d);
            let (gates, gate) = gate.as_chunks_mut::<LANES>();
            let (ups, up) = up.as_chunks_mut::<LANES>();
            let (dys, dy) = dy.as_chunks_mut::<LANES>();
            // Left to itself the compiler does not vectorise a loop over three slices that change.
            for ((gate, up), dy) in gates.iter_mut().zip(ups).zip(dys) {
                for lane in 0..LANES {
                    (gate[lane], up[lane], dy[lane]) = backward(gate[lane], up[lane], dy[lane]);
                }
            }
            for ((gate, up), dy) in gate.iter_mut().zip(up).zip(dy) {
                (*gate, *up, *dy) = backward(*gate, *up, *dy);
            }
        }
    }
}

/// Gradients with respect to gate and up, and `y` itself.
#[inline(always)]
fn backward(gate: f32, up: f32, dy: f32) -> (f32, f32, f32) {
    let sigmoid = 1.0 / (1.0 + exp(-gate));
    let silu = gate * sigmoid;
    (dy * up * (sigmoid + silu * (1.0 - sigmoid)), dy * silu, silu * up)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradient of `gate_up` and recomputed `y`, where the forward pass ran in `precision`.
    fn gradients(precision: Precision) -> (Buffer, Vec<f32>, Vec<f32>) {
        let (rows, d) = (11, 37);
        let wave = |i: usize| (i as f32 * 0.37).sin() * 3.0;
        let gate_up: Vec<f32> = (0..2 * rows * d).map(wave).collect();
        let mut y = vec![0.0; rows * d];
        let kept = swiglu(Buffer::copy_of(&gate_up), &mut y, d, precision);
        let mut dy: Vec<f32> = (0..rows * d).map(|i| wave(i + 5)).collect();
        (swiglu_backward(kept, &mut dy, d), dy, y)
    }

    #[test]
    fn what_is_rounded_costs_bits_of_the_gradient_and_none_of_the_result() {
        let (exact, again, y) = gradients(Precision::F32);
        assert!(again.iter().zip(&y).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1e-3)));
        let (rounded, _, same) = gradients(Precision::Bf16);
        assert_eq!(y, same);
        let largest = exact.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let error = exact.iter().zip(&*rounded).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error > 0.0 && error < largest / 100.0, "{error} of {largest}");
    }
}
