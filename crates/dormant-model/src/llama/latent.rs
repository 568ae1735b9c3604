//! Shifts of the residual stream, and what a loss owes to them.

use dormant_tensor::Buffer;

use super::{Activations, Inputs, Llama};
use crate::batch::Batch;
use crate::error::Result;

/// What is added to the residual stream after a block.
#[derive(Debug, Clone)]
pub struct Shift {
    /// The block, from 0.
    pub layer: usize,
    /// `[T, d_model]`.
    pub values: Buffer,
}

impl Llama {
    /// [`Llama::forward`] with `shifts` added to the residual stream.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    pub fn forward_shifted(&self, batch: &Batch, shifts: &[Shift]) -> Result<Activations> {
        self.forward_changed(batch, |layer, stream| {
            for shift in shifts.iter().filter(|shift| shift.layer == layer) {
                stream.iter_mut().zip(&*shift.values).for_each(|(x, s)| *x += s);
            }
        })
    }

    /// [`Llama::backward`] after [`Llama::forward_shifted`]. Returns the gradient with respect to each shift.
    pub fn backward_shifted(
        &mut self,
        activations: Activations,
        d_hidden: Buffer,
        shifts: &[Shift],
    ) -> Vec<Buffer> {
        let mut gradients: Vec<Buffer> = shifts.iter().map(|_| Buffer::zeros(0)).collect();
        self.backward_seen(activations, d_hidden, Inputs::Wanted, |layer, dx| {
            let here = shifts.iter().zip(&mut gradients).filter(|(shift, _)| shift.layer == layer);
            here.for_each(|(_, gradient)| *gradient = dx.clone());
        });
        gradients
    }
}
