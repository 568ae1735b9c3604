//! SwiGLU (Shazeer 2020): `y = silu(gate) · up`, with `silu(z) = z / (1 + e^-z)`.

use rayon::prelude::*;

use crate::simd::{exp, vectorised};

/// Rows per parallel task.
const ROWS: usize = 8;

/// `gate_up`: `[rows, 2 d]`, the gate in the first `d` columns; `y`: `[rows, d]`.
pub fn swiglu(gate_up: &[f32], y: &mut [f32], d: usize) {
    assert_eq!(gate_up.len(), 2 * y.len(), "swiglu: lengths differ");
    y.par_chunks_mut(d * ROWS)
        .zip(gate_up.par_chunks(2 * d * ROWS))
        .for_each(|(y, gate_up)| forward_rows(gate_up, y, d));
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

/// Given `dy`, `[rows, d]`: replaces `gate_up` by its gradient, and `dy` by the `y` that [`swiglu`] computed.
pub fn swiglu_backward(gate_up: &mut [f32], dy: &mut [f32], d: usize) {
    assert_eq!(gate_up.len(), 2 * dy.len(), "swiglu_backward: lengths differ");
    gate_up
        .par_chunks_mut(2 * d * ROWS)
        .zip(dy.par_chunks_mut(d * ROWS))
        .for_each(|(gate_up, dy)| backward_rows(gate_up, dy, d));
}

vectorised! {
    fn backward_rows(gate_up: &mut [f32], dy: &mut [f32], d: usize) {
        for (gate_up, dy) in gate_up.chunks_exact_mut(2 * d).zip(dy.chunks_exact_mut(d)) {
            let (gate, up) = gate_up.split_at_mut(d);
            for ((z, up), dy) in gate.iter_mut().zip(up).zip(dy) {
                let sigmoid = 1.0 / (1.0 + exp(-*z));
                let silu = *z * sigmoid;
                let (d_up, y) = (*dy * silu, silu * *up);
                *z = *dy * *up * (sigmoid + silu * (1.0 - sigmoid));
                *up = d_up;
                *dy = y;
            }
        }
    }
}
