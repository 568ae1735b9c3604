//! The state of a run: parameters and moments, exactly.

use std::collections::BTreeMap;
use std::path::Path;

use dormant_model::checkpoint::safetensors::{SafetensorsFile, write_safetensors};
use dormant_model::llama::Llama;

use crate::error::{Error, Result};
use crate::optimizer::{AdamW, AdamWConfig};

/// What a run needs in order to go on: copies of nothing, references to all.
#[derive(Debug)]
pub struct ResumeState<'a> {
    tensors: Vec<(String, &'a [f32])>,
    step: u32,
}

impl<'a> ResumeState<'a> {
    /// The state of a model in training.
    pub fn of(model: &'a mut Llama, optimizer: &'a AdamW) -> Self {
        let mut tensors = Vec::new();
        for (parameter, (first, second)) in model.parameters_mut().into_iter().zip(&optimizer.moments) {
            let parameter = &*parameter;
            tensors.push((parameter.name.clone(), parameter.value.as_slice()));
            tensors.push((format!("first.{}", parameter.name), first.as_slice()));
            tensors.push((format!("second.{}", parameter.name), second.as_slice()));
        }
        Self { tensors, step: optimizer.step }
    }

    /// Writes the state to one file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let tensors = self.tensors.iter().map(|(name, values)| (name.clone(), vec![values.len()], *values));
        let metadata = BTreeMap::from([("step".to_owned(), self.step.to_string())]);
        Ok(write_safetensors(path, tensors, &metadata)?)
    }
}

/// Puts a saved state back into `model` and returns its optimiser.
///
/// # Errors
/// If the file is damaged or belongs to another model.
pub fn restore(path: &Path, model: &mut Llama, config: AdamWConfig) -> Result<AdamW> {
    let file = SafetensorsFile::open(path)?;
    let mut optimizer = AdamW::new(config, &model.parameters_mut());
    optimizer.step = file.metadata().get("step").and_then(|s| s.parse().ok()).unwrap_or(0);
    for (parameter, (first, second)) in model.parameters_mut().into_iter().zip(&mut optimizer.moments) {
        let name = parameter.name.clone();
        let read = |name: String, target: &mut Vec<f32>| -> Result<()> {
            let values = file.tensor_f32(&name)?;
            if values.len() != target.len() {
                let (found, expected) = (values.len(), target.len());
                return Err(Error::ResumeMismatch { tensor: name, found, expected });
            }
            *target = values;
            Ok(())
        };
        read(name.clone(), &mut parameter.value)?;
        read(format!("first.{name}"), first)?;
        read(format!("second.{name}"), second)?;
    }
    model.refresh();
    Ok(optimizer)
}
