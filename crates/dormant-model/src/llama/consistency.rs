//! How much the residual stream turns from block to block, and what that owes to inputs and weights.

use dormant_tensor::Buffer;

use super::{Llama, query_segments};
use crate::batch::Batch;
use crate::error::Result;

impl Llama {
    /// Mean over neighbouring blocks and tokens of `1 - cos(h_l, h_{l+1})`, `h_l` being the residual stream after block
    /// `l` (the last block is left out, because what it writes is meant for the output layer). `shift` is added to
    /// the input embeddings, `[T, d_model]`. The gradient of the mean times `weight` is accumulated in the trained
    /// parameters, and that with respect to the input embeddings is returned.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a sequence that is too long.
    pub fn inconsistency_backward(
        &mut self,
        batch: &Batch,
        shift: Option<&[f32]>,
        weight: f32,
    ) -> Result<(f32, Buffer)> {
        batch.check(self.config.vocab_size, self.max_positions())?;
        let (positions, queries) = (batch.positions(), query_segments(batch));
        let (d, blocks) = (self.config.hidden_size, self.layers.len() - 1);
        let mut x = self.embed(&batch.tokens);
        if let Some(shift) = shift {
            x.iter_mut().zip(shift).for_each(|(x, s)| *x += s);
        }
        let (layers, mut x) = self.blocks_of_batch(blocks, x, &positions, &queries);
        let pairs = blocks.saturating_sub(1) * batch.len();
        let weight = weight / pairs.max(1) as f32;
        let mut sum = 0.0;
        // `x` is what stands above the block in hand, `dx` the gradient there.
        let mut dx = Buffer::zeros(x.len());
        for (index, layer) in layers.into_iter().enumerate().rev() {
            let below = layer.input.clone();
            let mut d_below = Buffer::zeros(x.len());
            if index > 0 {
                let rows = below.chunks_exact(d).zip(x.chunks_exact(d));
                let gradients = d_below.chunks_exact_mut(d).zip(dx.chunks_exact_mut(d));
                for ((a, b), (d_a, d_b)) in rows.zip(gradients) {
                    sum += f64::from(turn_backward(a, b, weight, d_a, d_b));
                }
            }
            self.block_backward(index, layer, &positions, &queries, &mut dx, true);
            dx.iter_mut().zip(&*d_below).for_each(|(x, d)| *x += d);
            x = below;
        }
        Ok(((sum / pairs.max(1) as f64) as f32, dx))
    }
}

/// `1 - cos(a, b)`; its gradient times `weight` is added to `d_a` and `d_b`.
fn turn_backward(a: &[f32], b: &[f32], weight: f32, d_a: &mut [f32], d_b: &mut [f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let (aa, bb) = (dot(a, a).max(f32::MIN_POSITIVE), dot(b, b).max(f32::MIN_POSITIVE));
    let norms = aa.sqrt() * bb.sqrt();
    let cosine = dot(a, b) / norms;
    for i in 0..a.len() {
        d_a[i] -= weight * (b[i] / norms - cosine * a[i] / aa);
        d_b[i] -= weight * (a[i] / norms - cosine * b[i] / bb);
    }
    1.0 - cosine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_a_turn_is_that_of_differences() {
        let (a, b) = ([0.3, -1.2, 0.7, 2.0], [1.1, 0.4, -0.2, 0.9]);
        let value = |a: &[f32], b: &[f32]| turn_backward(a, b, 0.0, &mut [0.0; 4], &mut [0.0; 4]);
        let (mut d_a, mut d_b) = ([0.0; 4], [0.0; 4]);
        turn_backward(&a, &b, 1.0, &mut d_a, &mut d_b);
        for i in 0..4 {
            let moved = |v: [f32; 4], by: f32| {
                let mut v = v;
                v[i] += by;
                v
            };
            let slope_a = (value(&moved(a, 1e-2), &b) - value(&moved(a, -1e-2), &b)) / 2e-2;
            let slope_b = (value(&a, &moved(b, 1e-2)) - value(&a, &moved(b, -1e-2))) / 2e-2;
            assert!((slope_a - d_a[i]).abs() < 1e-3, "{slope_a} {}", d_a[i]);
            assert!((slope_b - d_b[i]).abs() < 1e-3, "{slope_b} {}", d_b[i]);
        }
    }
}
