//! Gradient descent with momentum (Polyak 1964), one parameter tensor at a time.

use rayon::prelude::*;

use crate::simd::{CHUNK, vectorised};

/// Constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the sum of gradients.
    pub momentum: f32,
    /// Weight decay beside that sum, multiplied by the learning rate.
    pub weight_decay: f32,
}

/// Updates `weights` and the decaying sum of their gradients; all slices have the same length.
pub fn sgd(weights: &mut [f32], gradient: &[f32], sum: &mut [f32], step: SgdStep) {
    let chunks = weights.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(sum.par_chunks_mut(CHUNK));
    chunks.for_each(|((weights, gradient), sum)| update(weights, gradient, sum, step));
}

vectorised! {
    fn update(weights: &mut [f32], gradient: &[f32], sum: &mut [f32], step: SgdStep) {
        let keep = 1.0 - step.learning_rate * step.weight_decay;
        for ((w, g), m) in weights.iter_mut().zip(gradient).zip(sum) {
            *m = step.momentum.mul_add(*m, *g);
            *w = *w * keep - step.learning_rate * *m;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps by hand, as `torch.optim.SGD(momentum=0.9)` takes them.
    #[test]
    fn steps_add_up() {
        let (mut weights, mut sum) = (vec![1.0_f32; CHUNK + 3], vec![0.0; CHUNK + 3]);
        let step = SgdStep { learning_rate: 0.5, momentum: 0.9, weight_decay: 0.0 };
        sgd(&mut weights, &vec![0.2; CHUNK + 3], &mut sum, step);
        assert!(weights.iter().all(|w| (w - 0.9).abs() < 1e-6));
        sgd(&mut weights, &vec![0.1; CHUNK + 3], &mut sum, step);
        assert!(weights.iter().all(|w| (w - 0.76).abs() < 1e-6), "{}", weights[0]);
        let decaying = SgdStep { weight_decay: 0.1, ..step };
        sgd(&mut weights, &vec![0.0; CHUNK + 3], &mut vec![0.0; CHUNK + 3], decaying);
        assert!(weights.iter().all(|w| (w - 0.76 * 0.95).abs() < 1e-6));
    }
}
