//! Choosing the next token.

use dormant_tensor::cross_entropy::softmax_with_temperature;
use dormant_tensor::simd::argmax;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Sampling {
    /// The most probable token; the lowest id of equals.
    Greedy,
    /// A draw from the softmax of the logits divided by the temperature.
    Random {
        /// Above 0.
        temperature: f32,
        /// Only the `k` most probable tokens; 0 for all.
        top_k: usize,
        /// Only the most probable tokens that together reach this probability; 1 for all.
        top_p: f32,
    },
}

impl Sampling {
    /// Plain sampling at a temperature; greedy at 0.
    pub fn temperature(temperature: f32) -> Self {
        if temperature <= 0.0 { Self::Greedy } else { Self::Random { temperature, top_k: 0, top_p: 1.0 } }
    }
}

/// Draws the tokens of one sequence. What it draws depends on its own seed and logits alone.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, seed: u64) -> Self {
        Self { sampling, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next token, given its logits (which are overwritten), and the log of the probability with which it was
    /// drawn: 0 for the greedy choice, which is certain.
    pub(crate) fn next(&mut self, logits: &mut [f32]) -> (u32, f32) {
        let Sampling::Random { temperature, top_k, top_p } = self.sampling else {
            return (argmax(logits) as u32, 0.0);
        };
        let uniform: f32 = self.rng.random();
        if top_k == 0 && top_p >= 1.0 {
            softmax_with_temperature(logits, temperature);
            let (token, log_prob) = draw(logits, uniform);
            return (token as u32, log_prob);
        }
        let mut candidates: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_logit);
            candidates.truncate(top_k);
        }
        candidates.sort_unstable_by(by_logit);
        let best = candidates[0].1;
        let mut weights: Vec<f32> = candidates.iter().map(|c| ((c.1 - best) / temperature).exp()).collect();
        let total: f32 = weights.iter().sum();
        let mut mass = 0.0;
        let kept = weights.iter().take_while(|w| {
            let before = mass;
            mass += **w;
            before < top_p * total
        });
        let kept = kept.count().max(1);
        weights.truncate(kept);
        let (drawn, log_prob) = draw(&weights, uniform);
        (candidates[drawn].0, log_prob)
    }
}

/// Index drawn in proportion to `weights`, and the log of its probability.
fn draw(weights: &[f32], uniform: f32) -> (usize, f32) {
    let total: f64 = weights.iter().map(|w| *w as f64).sum();
    let mut left = uniform as f64 * total;
    for (i, w) in weights.iter().enumerate() {
        left -= *w as f64;
        if left < 0.0 {
            return (i, log_share(*w, total));
        }
    }
    // Rounding may leave a crumb: the last token that can be drawn at all.
    let last = weights.iter().rposition(|w| *w > 0.0).unwrap_or(0);
    (last, log_share(weights[last], total))
}

fn log_share(weight: f32, total: f64) -> f32 {
    (f64::from(weight) / total).ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampler::new(Sampling::Greedy, 0).next(&mut [1.0, 3.0, 3.0]), (1, 0.0));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let mut sampler = Sampler::new(Sampling::temperature(0.5), 7);
        let n = 20_000;
        let drawn: Vec<(u32, f32)> = (0..n).map(|_| sampler.next(&mut [0.0, 1.0, -1.0])).collect();
        let hits = drawn.iter().filter(|d| d.0 == 1).count() as f64 / n as f64;
        let expected = (2.0f64).exp() / ((2.0f64).exp() + 1.0 + (-2.0f64).exp());
        assert!(drawn.iter().all(|d| d.0 != 1 || (f64::from(d.1) - expected.ln()).abs() < 1e-6));
        assert!((hits - expected).abs() < 0.01, "{hits} against {expected}");
    }

    #[test]
    fn top_k_and_top_p_exclude_the_tail() {
        let logits = [2.0, 1.9, 0.0, -1.0];
        for sampling in [
            Sampling::Random { temperature: 1.0, top_k: 2, top_p: 1.0 },
            Sampling::Random { temperature: 1.0, top_k: 0, top_p: 0.8 },
        ] {
            let mut sampler = Sampler::new(sampling, 3);
            assert!((0..500).all(|_| sampler.next(&mut logits.clone()).0 < 2));
        }
    }
}
