//! The policy that training must not leave too far behind.

use dormant_model::linear::Trained;
use dormant_model::llama::Llama;
use dormant_model::parameter::Parameter;

use super::update::windows;
use crate::error::Result;
use crate::objective::sft;
use crate::render::Rendered;

/// The policy as it was at the beginning, without a second copy of the frozen weights.
#[derive(Clone, Debug)]
pub enum Reference {
    /// The policy with its adapters switched off.
    AdaptersOff,
    /// The policy with these values in its trained parameters.
    Values(Vec<Vec<f32>>),
}

impl Reference {
    /// The policy as it is now. Fresh adapters change nothing and are switched off; other parameters are copied.
    pub fn of(policy: &mut Llama) -> Self {
        let lora = policy.options.trained == Trained::Lora;
        let parameters = policy.parameters_mut();
        let is_fresh =
            |p: &&mut Parameter| !p.name.ends_with(".lora_B.weight") || p.value.iter().all(|x| *x == 0.0);
        if lora && parameters.iter().all(is_fresh) {
            return Self::AdaptersOff;
        }
        Self::Values(parameters.into_iter().map(|p| p.value.clone()).collect())
    }

    /// Log-probabilities of the trained tokens of each row, in windows of at most `tokens` tokens.
    ///
    /// # Errors
    /// If a row does not fit the model.
    pub fn log_probs(
        &mut self,
        policy: &mut Llama,
        rows: &[&Rendered],
        tokens: usize,
    ) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::AdaptersOff => policy.without_adapters(|policy| log_probs(policy, rows, tokens)),
            Self::Values(values) => {
                swap(policy, values);
                let result = log_probs(policy, rows, tokens);
                swap(policy, values);
                result
            }
        }
    }
}

/// Log-probabilities of the trained tokens of each row.
///
/// # Errors
/// If a row does not fit the model.
pub fn log_probs(policy: &Llama, rows: &[&Rendered], tokens: usize) -> Result<Vec<Vec<f32>>> {
    let mut out = Vec::with_capacity(rows.len());
    for window in windows(rows, tokens) {
        let rows = &rows[window];
        let (batch, targets) = sft::batch(rows, 0.0);
        let flat = policy.log_probs(&policy.hidden(&batch)?, &targets);
        let mut flat = flat.into_iter();
        out.extend(rows.iter().map(|row| flat.by_ref().take(row.trained()).collect::<Vec<f32>>()));
    }
    Ok(out)
}

fn swap(policy: &mut Llama, values: &mut [Vec<f32>]) {
    for (parameter, value) in policy.parameters_mut().into_iter().zip(values) {
        std::mem::swap(&mut parameter.value, value);
    }
    policy.refresh();
}
