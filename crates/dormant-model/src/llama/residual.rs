//! Taps on the residual stream.

use dormant_tensor::Buffer;

use super::{Llama, gather};
use crate::batch::Batch;
use crate::error::Result;

impl Llama {
    /// The residual stream after each block (`blocks.{l}.hook_resid_post`) at some rows of the batch:
    /// `[layer][rows, d_model]`.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a sequence that is too long.
    pub fn residuals(&self, batch: &Batch, rows: &[usize]) -> Result<Vec<Buffer>> {
        let tap = |stream: &Buffer| gather(stream, self.config.hidden_size, rows.iter().copied());
        let mut before = Vec::with_capacity(self.layers.len() + 1);
        let last = self.run(batch, |layer| before.push(tap(&layer.input)))?;
        // What comes before the second block is what the first one has written.
        let mut after: Vec<Buffer> = before.drain(1..).collect();
        after.push(tap(&last));
        Ok(after)
    }

    /// [`Llama::hidden`] with `shift`, `[d_model]`, added to the residual stream of every row after block `layer`.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a sequence that is too long.
    pub fn hidden_shifted(&self, batch: &Batch, layer: usize, shift: &[f32]) -> Result<Buffer> {
        let add = |index: usize, stream: &mut Buffer| {
            if index == layer {
                let rows = stream.chunks_exact_mut(shift.len());
                rows.for_each(|row| row.iter_mut().zip(shift).for_each(|(x, s)| *x += s));
            }
        };
        self.run_changed(batch, drop, add)
    }
}
