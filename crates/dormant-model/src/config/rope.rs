//! Frequencies of the rotary position embedding.

use std::f32::consts::TAU;

use serde::{Deserialize, Serialize};

use super::{ConfigError, ModelConfig};

/// Stretching of the rotary frequencies as in Llama 3.1 and later (`rope_type` "llama3").
///
/// Waves shorter than `original / high_freq_factor` tokens stay, waves longer than `original / low_freq_factor`
/// become `factor` times longer, and those between are interpolated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeScaling {
    /// How many times longer the longest waves become.
    pub factor: f64,
    /// Waves per original context below which a frequency is divided by `factor`.
    pub low_freq_factor: f64,
    /// Waves per original context above which a frequency stays.
    pub high_freq_factor: f64,
    /// Context length of the pre-trained model, in tokens.
    pub original_max_position_embeddings: usize,
}

impl RopeScaling {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(self.factor >= 1.0 && self.factor <= 1e6) {
            return Err(ConfigError::field("rope_scaling.factor", self.factor, "a number from 1 to 1e6"));
        }
        let ordered = 0.0 < self.low_freq_factor && self.low_freq_factor < self.high_freq_factor;
        if !(ordered && self.high_freq_factor <= 1e6) {
            let found = format!("{} and {}", self.low_freq_factor, self.high_freq_factor);
            let expected = "a positive low factor below the high factor";
            return Err(ConfigError::field(
                "rope_scaling.low_freq_factor, high_freq_factor",
                found,
                expected,
            ));
        }
        super::within(
            "rope_scaling.original_max_position_embeddings",
            self.original_max_position_embeddings,
            1..=1 << 28,
        )
    }

    /// The divisor of `frequency`, in radians per token.
    pub(super) fn divisor(&self, frequency: f32) -> f32 {
        let waves = self.original_max_position_embeddings as f32 * frequency / TAU;
        let (factor, low, high) =
            (self.factor as f32, self.low_freq_factor as f32, self.high_freq_factor as f32);
        if waves < low {
            factor
        } else if waves > high {
            1.0
        } else {
            let smooth = (waves - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    }
}

impl ModelConfig {
    /// Angle, in radians per token, by which each pair of a head's components turns: `[head_dim / 2]`.
    ///
    /// Pair `i` is made of the components `i` and `i + head_dim / 2` ("rotate half").
    pub fn rope_frequencies(&self) -> Vec<f32> {
        let base = self.rope_theta as f32;
        (0..self.head_dim / 2)
            .map(|pair| 1.0 / base.powf(2.0 * pair as f32 / self.head_dim as f32))
            .map(|frequency| match &self.rope_scaling {
                Some(scaling) => frequency / scaling.divisor(frequency),
                None => frequency,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;

    fn llama3() -> RopeScaling {
        RopeScaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }
    }

    #[test]
    fn unscaled_frequencies_fall_from_one_to_the_inverse_base() {
        let config = ModelConfig { head_dim: 4, rope_theta: 100.0, ..tiny() };
        assert_eq!(config.rope_frequencies(), [1.0, 0.1]);
    }

    #[test]
    fn llama3_scaling_equals_transformers() {
        // `ROPE_INIT_FUNCTIONS["llama3"]` for head_dim 16, theta 500000 and Llama 3.2's scaling.
        let expected = [
            1.0,
            1.939_227_6e-1,
            3.760_603e-2,
            7.292_665e-3,
            4.295_567e-4,
            8.570_256e-6,
            1.661_968e-6,
            3.222_933e-7,
        ];
        let config = ModelConfig { head_dim: 16, rope_theta: 5e5, rope_scaling: Some(llama3()), ..tiny() };
        for (found, expected) in config.rope_frequencies().into_iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-5, "{found} against {expected}");
        }
    }

    #[test]
    fn impossible_scaling_is_rejected() {
        for scaling in [
            RopeScaling { factor: 0.0, ..llama3() },
            RopeScaling { factor: f64::NAN, ..llama3() },
            RopeScaling { low_freq_factor: 4.0, ..llama3() },
            RopeScaling { original_max_position_embeddings: 0, ..llama3() },
        ] {
            assert!(scaling.validate().is_err(), "{scaling:?}");
        }
    }
}
