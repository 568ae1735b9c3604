//! A trainable tensor.

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
