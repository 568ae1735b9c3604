//! The clipped policy gradient with a penalty on the divergence from a reference: group relative policy optimisation
//! (Shao et al. 2024, equations 3 and 4), with the weight of a token independent of the length of its reply, as in
//! DAPO (Yu et al. 2025, equation 8) and TRL.

use std::ops::AddAssign;

use dormant_model::llama::{Inputs, Llama};

use super::sft;
use crate::error::Result;
use crate::render::Rendered;

/// Constants of the objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyConfig {
    /// ε: the ratio of new to old probability earns nothing outside of `1 - ε ..= 1 + ε`.
    pub clip: f32,
    /// β: weight of the divergence from the reference.
    pub kl: f32,
}

/// What is known of a sampled token before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyToken {
    /// How much better than expected it was.
    pub advantage: f32,
    /// Its log-probability when it was drawn.
    pub old: f32,
    /// Its log-probability under the reference.
    pub reference: Option<f32>,
}

/// A loss summed over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicyLoss {
    /// Sum over the tokens.
    pub sum: f64,
    /// Number of tokens.
    pub tokens: u64,
    /// Tokens whose ratio was clipped.
    pub clipped: u64,
}

impl PolicyLoss {
    /// Mean per token; 0 without tokens.
    pub fn mean(&self) -> f64 {
        self.sum / self.tokens.max(1) as f64
    }
}

impl AddAssign for PolicyLoss {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.tokens += other.tokens;
        self.clipped += other.clipped;
    }
}

impl PolicyConfig {
    /// Loss of a token whose log-probability is `log_prob` now, its derivative with respect to that, and whether
    /// the ratio is clipped:
    /// `-min(r A, clip(r, 1 - ε, 1 + ε) A) + β (exp(ref - log p) - (ref - log p) - 1)`, with `r = p / p_old`.
    pub fn token(&self, token: PolicyToken, log_prob: f32) -> (f64, f32, bool) {
        let (advantage, clip) = (f64::from(token.advantage), f64::from(self.clip));
        let ratio = (f64::from(log_prob) - f64::from(token.old)).exp();
        let clipped = if advantage > 0.0 { ratio > 1.0 + clip } else { ratio < 1.0 - clip };
        let clipped = clipped && advantage != 0.0;
        let kept = if clipped { ratio.clamp(1.0 - clip, 1.0 + clip) } else { ratio };
        let mut loss = -kept * advantage;
        let mut slope = if clipped { 0.0 } else { -ratio * advantage };
        if let Some(reference) = token.reference {
            let (beta, log_ratio) = (f64::from(self.kl), f64::from(reference) - f64::from(log_prob));
            loss += beta * (log_ratio.exp_m1() - log_ratio);
            slope -= beta * log_ratio.exp_m1();
        }
        (loss, slope as f32, clipped)
    }
}

/// Loss of sampled rows; its gradient is accumulated. `tokens` are the trained tokens of all rows, in order.
///
/// # Errors
/// If a row does not fit the model.
pub fn loss(
    model: &mut Llama,
    rows: &[&Rendered],
    tokens: &[PolicyToken],
    config: PolicyConfig,
) -> Result<PolicyLoss> {
    let (batch, targets) = sft::batch(rows, 0.0);
    let activations = model.forward(&batch)?;
    let mut total = PolicyLoss { tokens: targets.len() as u64, ..PolicyLoss::default() };
    let (_, d_hidden) = model.log_probs_backward_of(&activations.hidden, &targets, |i, log_prob| {
        let (loss, slope, clipped) = config.token(tokens[i], log_prob);
        total.sum += loss;
        total.clipped += u64::from(clipped);
        slope
    });
    model.backward(activations, d_hidden, Inputs::Unwanted);
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_derivative() {
        let config = PolicyConfig { clip: 0.2, kl: 0.3 };
        for advantage in [-1.5, 0.0, 0.7] {
            for log_prob in [-2.5f32, -2.1, -1.9, -1.5] {
                let token = PolicyToken { advantage, old: -2.0, reference: Some(-1.7) };
                let (_, slope, _) = config.token(token, log_prob);
                let h = 1.0 / 1024.0;
                let rise = config.token(token, log_prob + h).0 - config.token(token, log_prob - h).0;
                let expected = rise / (2.0 * f64::from(h));
                assert!((f64::from(slope) - expected).abs() < 1e-5, "{slope} against {expected}");
            }
        }
    }

    #[test]
    fn clipping_binds_only_where_the_ratio_has_gone_the_right_way() {
        let config = PolicyConfig { clip: 0.2, kl: 0.0 };
        let clipped = |advantage, log_prob| {
            config.token(PolicyToken { advantage, old: 0.0, reference: None }, log_prob).2
        };
        assert!(clipped(1.0, 0.3) && !clipped(1.0, -0.3));
        assert!(clipped(-1.0, -0.3) && !clipped(-1.0, 0.3));
        assert!(!clipped(0.0, 0.3));
    }
}
