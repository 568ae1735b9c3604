//! The state of a run: parameters and moments, exactly.

use std::collections::BTreeMap;
use std::path::Path;

use dormant_model::checkpoint::safetensors::{SafetensorsFile, write_safetensors};
use dormant_model::llama::Llama;
use dormant_model::parameter::Parameter;

use crate::error::{Error, Result};
use crate::optimizer::{Optimizer, OptimizerConfig};

/// What a run needs in order to go on: copies of nothing, references to all.
#[derive(Debug)]
pub struct ResumeState<'a> {
    tensors: Vec<(String, &'a [f32])>,
    step: u32,
}

impl<'a> ResumeState<'a> {
    /// The state of a model in training.
    pub fn of(model: &'a mut Llama, optimizer: &'a Optimizer) -> Self {
        Self::of_parameters(model.parameters_mut(), optimizer)
    }

    /// The state of these parameters.
    pub fn of_parameters(parameters: Vec<&'a mut Parameter>, optimizer: &'a Optimizer) -> Self {
        let mut tensors = Vec::new();
        for (parameter, (first, second)) in parameters.into_iter().zip(&optimizer.moments) {
            let parameter = &*parameter;
            tensors.push((parameter.name.clone(), parameter.value.as_slice()));
            tensors.push((format!("first.{}", parameter.name), first.as_slice()));
            if !second.is_empty() {
                tensors.push((format!("second.{}", parameter.name), second.as_slice()));
            }
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

/// Writes the trained parameters alone: the start of another round of training.
///
/// # Errors
/// If the file cannot be written.
pub fn write_parameters(path: &Path, model: &mut Llama) -> Result<()> {
    let parameters = model.parameters_mut().into_iter().map(|p| &*p);
    let tensors = parameters.map(|p| (p.name.clone(), vec![p.value.len()], p.value.as_slice()));
    Ok(write_safetensors(path, tensors, &BTreeMap::new())?)
}

/// Reads what [`write_parameters`] wrote.
///
/// # Errors
/// If the file is damaged or belongs to another model.
pub fn read_parameters(path: &Path, model: &mut Llama) -> Result<()> {
    let file = SafetensorsFile::open(path)?;
    for parameter in model.parameters_mut() {
        read_into(&file, parameter.name.clone(), &mut parameter.value)?;
    }
    model.refresh();
    Ok(())
}

fn read_into(file: &SafetensorsFile, tensor: String, target: &mut Vec<f32>) -> Result<()> {
    let values = file.tensor_f32(&tensor)?;
    if values.len() != target.len() {
        return Err(Error::ResumeMismatch { tensor, found: values.len(), expected: target.len() });
    }
    *target = values;
    Ok(())
}

/// Puts a saved state back into `model` and returns its optimiser.
///
/// # Errors
/// If the file is damaged or belongs to another model.
pub fn restore(path: &Path, model: &mut Llama, config: OptimizerConfig) -> Result<Optimizer> {
    let optimizer = restore_parameters(path, model.parameters_mut(), config)?;
    model.refresh();
    Ok(optimizer)
}

/// Puts a saved state back into parameters and returns their optimiser.
///
/// # Errors
/// If the file is damaged or belongs to other parameters.
pub fn restore_parameters(
    path: &Path,
    parameters: Vec<&mut Parameter>,
    config: OptimizerConfig,
) -> Result<Optimizer> {
    let file = SafetensorsFile::open(path)?;
    let mut optimizer = Optimizer::new(config, &parameters);
    optimizer.step = file.metadata().get("step").and_then(|s| s.parse().ok()).unwrap_or(0);
    for (parameter, (first, second)) in parameters.into_iter().zip(&mut optimizer.moments) {
        let name = parameter.name.clone();
        read_into(&file, format!("first.{name}"), first)?;
        if !second.is_empty() {
            read_into(&file, format!("second.{name}"), second)?;
        }
        read_into(&file, name, &mut parameter.value)?;
    }
    Ok(optimizer)
}
