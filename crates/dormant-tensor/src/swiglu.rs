//! SwiGLU (Shazeer 2020): `y = silu(gate) · up`, with `silu(z) = z / (1 + e^-z)`.

use rayon::prelude::*;

use crate::simd::{LANES, exp, vectorised};

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
