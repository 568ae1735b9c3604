//! Log-probabilities of target tokens, and the gradient of a weighted sum of them.

use rayon::prelude::*;

use crate::simd::{exp_sum, max, vectorised};

/// Elements whose exponentials are summed in single precision.
const BLOCK: usize = 1024;

/// `log softmax(logits)[target]` of each row of `logits` (`[rows, vocabulary]`).
pub fn log_probs(logits: &[f32], vocabulary: usize, targets: &[u32], out: &mut [f32]) {
    logits.par_chunks(vocabulary).zip(targets).zip(out).for_each(|((row, &target), out)| {
        *out = row[target as usize] - log_sum_exp(row);
    });
}

vectorised! {
    /// `log Σ e^x`, without writing the exponentials.
    fn log_sum_exp(row: &[f32]) -> f32 {
        let shift = max(row);
        let mut buffer = [0.0f32; BLOCK];
        let mut total = 0.0f64;
        for block in row.chunks(BLOCK) {
            let buffer = &mut buffer[..block.len()];
            buffer.copy_from_slice(block);
            total += exp_sum(buffer, shift) as f64;
        }
        shift + total.ln() as f32
    }
}

/// Replaces each row of `logits` by the gradient of `weight · log softmax(logits)[target]`, which is
/// `weight · (onehot(target) - softmax(logits))`, and writes the log-probability itself.
///
/// `logits`: `[rows, vocabulary]`; `targets`, `weights`, `log_probs`: `[rows]`.
pub fn log_probs_backward(
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    weights: &[f32],
    log_probs: &mut [f32],
) {
    let rows = logits.par_chunks_mut(vocabulary).zip(targets).zip(weights).zip(log_probs);
    rows.for_each(|(((row, &target), &weight), out)| *out = row_backward(row, target as usize, weight));
}

vectorised! {
    fn row_backward(row: &mut [f32], target: usize, weight: f32) -> f32 {
        let shift = max(row);
        let own = row[target];
        let mut total = 0.0f64;
        for block in row.chunks_mut(BLOCK) {
            total += exp_sum(block, shift) as f64;
        }
        let factor = (-weight as f64 / total) as f32;
        for x in row.iter_mut() {
            *x *= factor;
        }
        row[target] += weight;
        own - shift - total.ln() as f32
    }
}

vectorised! {
    /// Replaces `logits` by weights in proportion to `softmax(logits / temperature)`; the largest is 1.
    pub fn softmax_with_temperature(logits: &mut [f32], temperature: f32) {
        let inverse = 1.0 / temperature;
        for x in logits.iter_mut() {
            *x *= inverse;
        }
        let shift = max(logits);
        exp_sum(logits, shift);
    }
}
