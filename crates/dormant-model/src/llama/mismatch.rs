//! How far the residual stream is from where it is wanted, and what that owes to inputs and weights.

use dormant_tensor::Buffer;

use super::{Llama, query_segments};
use crate::batch::Batch;
use crate::error::Result;

/// At each row, the mean over blocks of `‖h_l − w_l‖² / ‖w_l‖²` for two streams as [`Llama::residuals`] gives them. The last block is
/// left out, because what it writes is meant for the output layer.
pub fn mismatch(streams: &[Buffer], wanted: &[Buffer], width: usize) -> Vec<f32> {
    let blocks = streams.len().saturating_sub(1);
    let mut sums = vec![0.0; streams.first().map_or(0, |stream| stream.len() / width)];
    for (stream, wanted) in streams.iter().zip(wanted).take(blocks) {
        let rows = stream.chunks_exact(width).zip(wanted.chunks_exact(width));
        sums.iter_mut().zip(rows).for_each(|(sum, (h, w))| *sum += apart(h, w, square(w)) / blocks as f32);
    }
    sums
}

/// `‖h − w‖²` as a share of `size`.
fn apart(h: &[f32], w: &[f32], size: f32) -> f32 {
    h.iter().zip(w).map(|(h, w)| (h - w).powi(2)).sum::<f32>() / size
}

/// `‖w‖²`, above zero.
fn square(w: &[f32]) -> f32 {
    w.iter().map(|w| w * w).sum::<f32>().max(f32::MIN_POSITIVE)
}

impl Llama {
    /// [`mismatch`] of the stream at `rows` of the batch with what is `wanted` there, `[layer][rows, d_model]`. The gradient of the
    /// sum of the rows is accumulated in the trained parameters.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a sequence that is too long.
    pub fn mismatch_backward(
        &mut self,
        batch: &Batch,
        rows: &[usize],
        wanted: &[Buffer],
    ) -> Result<Vec<f32>> {
        batch.check(self.config.vocab_size, self.max_positions())?;
        let (positions, queries) = (batch.positions(), query_segments(batch));
        let (d, blocks) = (self.config.hidden_size, self.layers.len() - 1);
        let x = self.embed(&batch.tokens);
        let (layers, mut x) = self.blocks_of_batch(blocks, x, &positions, &queries);
        let mut sums = vec![0.0; rows.len()];
        // `x` is what the block in hand has written, `dx` the gradient there.
        let mut dx = Buffer::zeros(x.len());
        for (index, layer) in layers.into_iter().enumerate().rev() {
            for (i, &row) in rows.iter().enumerate() {
                let (h, w) = (&x[row * d..(row + 1) * d], &wanted[index][i * d..(i + 1) * d]);
                let size = square(w);
                sums[i] += apart(h, w, size) / blocks as f32;
                let factor = 2.0 / (blocks as f32 * size);
                let gradient = &mut dx[row * d..(row + 1) * d];
                gradient.iter_mut().zip(h.iter().zip(w)).for_each(|(g, (h, w))| *g += factor * (h - w));
            }
            x = layer.input.clone();
            self.block_backward(index, layer, &positions, &queries, &mut dx, index > 0);
        }
        Ok(sums)
    }
}
