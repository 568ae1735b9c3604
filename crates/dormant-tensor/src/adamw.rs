//! AdamW (Loshchilov & Hutter 2019, algorithm 2), one parameter tensor at a time.

use rayon::prelude::*;

use crate::simd::{CHUNK, vectorised};

/// Constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u32,
}

/// Updates `weights` and both moments by `gradient · gradient_scale`; all slices have the same length.
pub fn adamw(
    weights: &mut [f32],
    gradient: &[f32],
    gradient_scale: f32,
    first: &mut [f32],
    second: &mut [f32],
    step: AdamWStep,
) {
    let chunks = weights.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
    let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
    chunks.zip(moments).for_each(|((weights, gradient), (first, second))| {
        update(weights, gradient, gradient_scale, first, second, step);
    });
}

vectorised! {
    fn update(
        weights: &mut [f32],
        gradient: &[f32],
        gradient_scale: f32,
        first: &mut [f32],
        second: &mut [f32],
        step: AdamWStep,
    ) {
        let bias1 = 1.0 - step.beta1.powi(step.step as i32);
        let bias2 = (1.0 - step.beta2.powi(step.step as i32)).sqrt();
        let rate = step.learning_rate / bias1;
        let keep = 1.0 - step.learning_rate * step.weight_decay;
        for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * gradient_scale;
            *m = step.beta1.mul_add(*m, (1.0 - step.beta1) * g);
            *v = step.beta2.mul_add(*v, (1.0 - step.beta2) * g * g);
            *w = *w * keep - rate * *m / (v.sqrt() / bias2 + step.epsilon);
        }
    }
}
