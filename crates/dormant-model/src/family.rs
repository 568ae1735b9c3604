//! A family of small models to train from scratch: the same architecture at several sizes.
//!
//! Every member is a Llama with as many key/value as query heads, a feed-forward layer of 8/3 of the width, tied
//! embeddings and the vocabulary that its tokenizer has. Weights begin as in Llama and GPT-2: normal with a standard
//! deviation of 0.02, those that write to the residual stream divided by √(2 · layers), norms at one.

use std::fmt;
use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Architecture, ModelConfig};
use crate::error::Result;
use crate::llama::{Llama, LoadOptions};

/// A member of the family, named after its parameters in millions with a vocabulary of about 1,500 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Size {
    /// 0.1 million.
    #[serde(rename = "0.1m")]
    M0_1,
    /// 0.3 million.
    #[serde(rename = "0.3m")]
    M0_3,
    /// 1 million.
    #[serde(rename = "1m")]
    M1,
    /// 3 million.
    #[serde(rename = "3m")]
    M3,
    /// 10 million.
    #[serde(rename = "10m")]
    M10,
    /// 30 million.
    #[serde(rename = "30m")]
    M30,
}

/// Longest sequence of every member, in tokens.
const MAX_POSITIONS: usize = 1024;
/// Standard deviation of fresh weights.
const DEVIATION: f64 = 0.02;

impl Size {
    /// All members, the smallest first.
    pub const ALL: [Self; 6] = [Self::M0_1, Self::M0_3, Self::M1, Self::M3, Self::M10, Self::M30];

    /// The name, such as `0.3m`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::M0_1 => "0.1m",
            Self::M0_3 => "0.3m",
            Self::M1 => "1m",
            Self::M3 => "3m",
            Self::M10 => "10m",
            Self::M30 => "30m",
        }
    }

    /// Of its residual stream.
    pub fn width(self) -> usize {
        self.dimensions()[0]
    }

    /// Width, width of a head, blocks, width of the feed-forward layer.
    fn dimensions(self) -> [usize; 4] {
        match self {
            Self::M0_1 => [32, 16, 4, 96],
            Self::M0_3 => [64, 16, 4, 176],
            Self::M1 => [128, 32, 4, 352],
            Self::M3 => [192, 32, 6, 512],
            Self::M10 => [320, 32, 8, 864],
            Self::M30 => [512, 64, 10, 1376],
        }
    }

    /// The dimensions, for a vocabulary of `vocab_size` tokens.
    pub fn config(self, vocab_size: usize, bos: Option<u32>, eos: Option<u32>) -> ModelConfig {
        let [hidden_size, head_dim, num_hidden_layers, intermediate_size] = self.dimensions();
        let heads = hidden_size / head_dim;
        ModelConfig {
            architecture: Architecture::Llama,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim,
            vocab_size,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            max_position_embeddings: MAX_POSITIONS,
            tie_word_embeddings: true,
            attention_bias: false,
            bos_token_id: bos,
            eos_token_ids: eos.into_iter().collect(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL.into_iter().find(|size| size.as_str() == text.to_lowercase()).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("no size `{text}`; the sizes are {names}")
        })
    }
}

impl Llama {
    /// A model with fresh weights. Each tensor is drawn from `seed` and its name alone, so that threads do not matter.
    ///
    /// # Errors
    /// If a shape is impossible.
    pub fn random(config: ModelConfig, options: LoadOptions, seed: u64) -> Result<Self> {
        let residual = DEVIATION / (2.0 * config.num_hidden_layers as f64).sqrt();
        Self::new(config, options, move |name, shape| {
            let length = shape.iter().product();
            if name.contains("norm") {
                return Ok(vec![1.0; length]);
            }
            let writes = ["o_proj.weight", "down_proj.weight"].iter().any(|end| name.ends_with(end));
            Ok(normal(name, length, if writes { residual } else { DEVIATION }, seed))
        })
    }
}

/// Draws from a normal distribution by the method of Box and Muller.
fn normal(name: &str, length: usize, deviation: f64, seed: u64) -> Vec<f32> {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    let mut rng = ChaCha8Rng::from_seed(digest.into());
    let mut values = Vec::with_capacity(length + 1);
    while values.len() < length {
        // In (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        values.extend([radius * angle.cos(), radius * angle.sin()].map(|value| value as f32));
    }
    values.truncate(length);
    values
}

#[cfg(test)]
mod tests {
    use dormant_tensor::Precision;

    use super::*;
    use crate::batch::Batch;
    use crate::linear::Trained;
    use crate::llama::LoadOptions;

    fn random(size: Size, seed: u64) -> Llama {
        let config = size.config(300, None, Some(2));
        Llama::random(config, LoadOptions::new(Precision::F32, Trained::All), seed).unwrap()
    }

    #[test]
    fn members_have_the_parameters_that_their_names_say() {
        for size in Size::ALL {
            let config = size.config(1536, None, None);
            config.validate().unwrap();
            let (d, ff) = (config.hidden_size, config.intermediate_size);
            assert_eq!(config.num_attention_heads * config.head_dim, d);
            let block = 4 * d * d + 3 * d * ff + 2 * d;
            let parameters = (config.num_hidden_layers * block + 1536 * d + d) as f64 / 1e6;
            let named: f64 = size.as_str().trim_end_matches('m').parse().unwrap();
            assert!((parameters / named - 1.0).abs() < 0.2, "{size}: {parameters} million");
            assert_eq!(size.as_str().parse(), Ok(size));
        }
        assert!("2m".parse::<Size>().unwrap_err().contains("0.3m"));
    }

    #[test]
    fn fresh_weights_follow_from_the_seed_and_know_nothing() {
        let (mut a, mut b, mut c) = (random(Size::M0_3, 5), random(Size::M0_3, 5), random(Size::M0_3, 6));
        let values = |model: &mut Llama| -> Vec<Vec<f32>> {
            model.parameters_mut().iter().map(|parameter| parameter.value.clone()).collect()
        };
        assert_eq!(values(&mut a), values(&mut b));
        assert_ne!(values(&mut a), values(&mut c));
        let embedding = &values(&mut a)[0];
        let variance = embedding.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / embedding.len() as f64;
        assert!((variance.sqrt() / DEVIATION - 1.0).abs() < 0.05);
        let tokens: Vec<u32> = (0..40).collect();
        let (batch, _) = Batch::share_prefixes(&[&tokens[..39]]);
        let hidden = a.hidden(&batch).unwrap();
        let targets: Vec<_> =
            (0..39).map(|row| crate::head::Target { row, token: tokens[row + 1], weight: -1.0 }).collect();
        let (log_probs, _) = a.log_probs_backward(&hidden, &targets);
        let loss = -log_probs.iter().map(|l| f64::from(*l)).sum::<f64>() / 39.0;
        assert!((loss - 300f64.ln()).abs() < 0.1, "{loss}");
    }
}
