//! A trainable tensor.

use dormant_tensor::simd;

use crate::error::{Error, Result};

/// A tensor that training changes, with its gradient.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name in the files: Hugging Face's for weights, PEFT's `<module>.lora_A.weight` for adapters.
    pub name: String,
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// Values.
    pub value: Vec<f32>,
    /// Gradient of the loss, accumulated by backward passes until [`Parameter::clear_gradient`].
    pub gradient: Vec<f32>,
}

impl Parameter {
    /// A parameter with a zero gradient.
    ///
    /// # Errors
    /// [`Error::TensorLength`] if the number of values is not what the shape says.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, value: Vec<f32>) -> Result<Self> {
        let name = name.into();
        if shape.iter().product::<usize>() != value.len() {
            return Err(Error::TensorLength { tensor: name, shape, values: value.len() });
        }
        let gradient = vec![0.0; value.len()];
        Ok(Self { name, shape, value, gradient })
    }

    /// Sets the gradient to zero.
    pub fn clear_gradient(&mut self) {
        self.gradient.fill(0.0);
    }
}

/// Multiplies all gradients by `factor`; then, if their norm exceeds `clip`, scales them to it. Returns the norm
/// before clipping.
pub fn scale_and_clip(parameters: &mut [&mut Parameter], factor: f32, clip: Option<f32>) -> f32 {
    let squares: f64 = parameters.iter().map(|p| simd::sum_of_squares(&p.gradient)).sum();
    let norm = squares.sqrt() as f32 * factor;
    // As torch's `clip_grad_norm_`.
    let factor = clip.map_or(factor, |clip| factor * (clip / (norm + 1e-6)).min(1.0));
    parameters.iter_mut().for_each(|p| simd::scale(&mut p.gradient, factor));
    norm
}
