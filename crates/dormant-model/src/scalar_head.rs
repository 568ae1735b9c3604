//! A number read off the residual stream: the score of a reward model, or the value of a state.

use std::collections::BTreeMap;
use std::path::Path;

use dormant_tensor::Buffer;
use dormant_tensor::norm::{rms_norm_backward, rms_norm_gain_backward};

use crate::checkpoint::safetensors::{SafetensorsFile, write_safetensors};
use crate::error::{Error, Result};
use crate::linear::Trained;
use crate::llama::{Llama, gather};
use crate::parameter::Parameter;

/// Hugging Face's name of the weight, in `LlamaForSequenceClassification`.
const WEIGHT: &str = "score.weight";

/// `w · norm(x)`, with the final norm of the model.
#[derive(Clone, Debug)]
pub struct ScalarHead {
    /// `score.weight`, `[1, d_model]`.
    pub weight: Parameter,
}

impl ScalarHead {
    /// A head that says 0 of everything.
    pub fn zeros(d_model: usize) -> Self {
        let weight = Parameter::new(WEIGHT, vec![1, d_model], vec![0.0; d_model]);
        Self { weight: weight.expect("as many values as the shape says") }
    }

    /// Writes the head to one file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        let Parameter { name, shape, value, .. } = &self.weight;
        write_safetensors(path, [(name.clone(), shape.clone(), value.as_slice())], metadata)
    }

    /// Reads what [`ScalarHead::write`] wrote.
    ///
    /// # Errors
    /// If the file is damaged, or belongs to a model of another width.
    pub fn read(path: &Path, d_model: usize) -> Result<Self> {
        let value = SafetensorsFile::open(path)?.tensor_f32(WEIGHT)?;
        if value.len() != d_model {
            return Err(Error::TensorLength {
                tensor: WEIGHT.to_owned(),
                shape: vec![1, d_model],
                values: value.len(),
            });
        }
        Ok(Self { weight: Parameter::new(WEIGHT, vec![1, d_model], value)? })
    }
}

impl Llama {
    /// What `head` says of chosen rows of `hidden` (`[T, d_model]`).
    pub fn scalars(&self, head: &ScalarHead, hidden: &[f32], rows: &[usize]) -> Vec<f32> {
        let d = self.config.hidden_size;
        let normed = self.normed(&gather(hidden, d, rows.iter().copied()));
        normed.chunks_exact(d).map(|row| dot(row, &head.weight.value)).collect()
    }

    /// Accumulates the gradient of `Σ weight · scalar` over chosen rows: that of the head, that of the norm where it
    /// is trained, and the one with respect to `hidden`, which is added to `d_hidden`.
    pub fn scalars_backward(
        &mut self,
        head: &mut ScalarHead,
        hidden: &[f32],
        rows: &[usize],
        weights: &[f32],
        d_hidden: &mut [f32],
    ) {
        let (d, epsilon) = (self.config.hidden_size, self.config.rms_norm_eps as f32);
        let x = gather(hidden, d, rows.iter().copied());
        let normed = self.normed(&x);
        let mut d_normed = Buffer::any(x.len());
        let rows_of_all = normed.chunks_exact(d).zip(d_normed.chunks_exact_mut(d));
        for ((normed, d_normed), &weight) in rows_of_all.zip(weights) {
            for (gradient, x) in head.weight.gradient.iter_mut().zip(normed) {
                *gradient += weight * x;
            }
            for (d_normed, w) in d_normed.iter_mut().zip(&head.weight.value) {
                *d_normed = weight * w;
            }
        }
        let norm = &mut self.head.norm;
        if self.options.trained == Trained::All {
            rms_norm_gain_backward(&x, epsilon, &d_normed, &mut norm.gradient);
        }
        let mut dx = Buffer::zeros(x.len());
        rms_norm_backward(&x, &norm.value, epsilon, &d_normed, &mut dx);
        for (dx, &row) in dx.chunks_exact(d).zip(rows) {
            d_hidden[row * d..(row + 1) * d].iter_mut().zip(dx).for_each(|(h, x)| *h += x);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}
