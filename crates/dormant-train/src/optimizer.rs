//! AdamW (Loshchilov & Hutter 2019).

use dormant_model::parameter::Parameter;
use dormant_tensor::adamw::{AdamWStep, adamw};

/// Constants of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

impl Default for AdamWConfig {
    /// PyTorch's defaults, without decay.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The optimiser with its moments, one pair per parameter.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    learning_rate: f32,
    /// Steps taken.
    pub(crate) step: u32,
    pub(crate) moments: Vec<(Vec<f32>, Vec<f32>)>,
}

impl AdamW {
    /// An optimiser for parameters of these sizes, with zero moments.
    pub fn new(config: AdamWConfig, parameters: &[&mut Parameter]) -> Self {
        let zeros = |p: &&mut Parameter| (vec![0.0; p.value.len()], vec![0.0; p.value.len()]);
        Self { config, learning_rate: 0.0, step: 0, moments: parameters.iter().map(zeros).collect() }
    }

    /// Sets the rate of the steps to come.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.learning_rate = learning_rate as f32;
    }

    /// The rate of the steps to come.
    pub fn learning_rate(&self) -> f64 {
        f64::from(self.learning_rate)
    }

    /// One step along the gradients, which are then cleared.
    pub fn step(&mut self, parameters: &mut [&mut Parameter]) {
        self.step += 1;
        let step = AdamWStep {
            learning_rate: self.learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            epsilon: self.config.epsilon,
            weight_decay: self.config.weight_decay,
            step: self.step,
        };
        for (parameter, (first, second)) in parameters.iter_mut().zip(&mut self.moments) {
            adamw(&mut parameter.value, &parameter.gradient, 1.0, first, second, step);
            parameter.clear_gradient();
        }
    }
}
