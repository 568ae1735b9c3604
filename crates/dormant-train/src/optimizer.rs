//! What turns gradients into steps: AdamW (Loshchilov & Hutter 2019), or gradient descent with momentum (Polyak 1964, as
//! PyTorch writes it).

use dormant_model::parameter::Parameter;
use dormant_tensor::adamw::{AdamWStep, adamw};
use dormant_tensor::sgd::{SgdStep, sgd};

/// Which rule, with its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Steps of each weight by the mean of its gradients over their root mean square.
    AdamW {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        epsilon: f32,
    },
    /// Steps along the decaying sum of the gradients.
    Sgd {
        /// Decay of that sum.
        momentum: f32,
    },
}

/// Constants of an [`Optimizer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// The rule of a step.
    pub rule: Rule,
    /// Weight decay that does not pass through the moments.
    pub weight_decay: f32,
}

impl Rule {
    /// AdamW with PyTorch's defaults.
    pub const ADAMW: Self = Self::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    /// Gradient descent with the usual momentum.
    pub const SGD: Self = Self::Sgd { momentum: 0.9 };
}

impl Default for OptimizerConfig {
    /// AdamW without decay.
    fn default() -> Self {
        Self { rule: Rule::ADAMW, weight_decay: 0.0 }
    }
}

/// The optimiser with what it remembers of each parameter: two moments, or one (the second is empty).
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    learning_rate: f32,
    /// Steps taken.
    pub(crate) step: u32,
    pub(crate) moments: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Optimizer {
    /// An optimiser for parameters of these sizes, with zero moments.
    pub fn new(config: OptimizerConfig, parameters: &[&mut Parameter]) -> Self {
        let zeros = |parameter: &&mut Parameter| {
            let size = parameter.value.len();
            let second = if matches!(config.rule, Rule::AdamW { .. }) { size } else { 0 };
            (vec![0.0; size], vec![0.0; second])
        };
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
        let OptimizerConfig { rule, weight_decay } = self.config;
        let learning_rate = self.learning_rate;
        for (parameter, (first, second)) in parameters.iter_mut().zip(&mut self.moments) {
            match rule {
                Rule::AdamW { beta1, beta2, epsilon } => {
                    let step =
                        AdamWStep { learning_rate, beta1, beta2, epsilon, weight_decay, step: self.step };
                    adamw(&mut parameter.value, &parameter.gradient, 1.0, first, second, step);
                }
                Rule::Sgd { momentum } => {
                    let step = SgdStep { learning_rate, momentum, weight_decay };
                    sgd(&mut parameter.value, &parameter.gradient, first, step);
                }
            }
            parameter.clear_gradient();
        }
    }
}
