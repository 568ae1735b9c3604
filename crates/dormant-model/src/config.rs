//! The dimensions and constants of a model, whatever file they came from.

mod gguf;
mod hugging_face;
mod rope;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

pub(crate) use gguf::ROPE_DIVISORS;
pub use rope::RopeScaling;

/// Family of decoder that a checkpoint belongs to. All share one computation; they differ in biases only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Llama 2 and 3, `SmolLM`, `SmolLM2`, `TinyLlama`, ...
    Llama,
    /// Mistral; within its sliding window it equals Llama.
    Mistral,
    /// Qwen 2 and 2.5: Llama with biases on the query, key and value projections.
    Qwen2,
}

/// Dimensions and constants of a decoder of the Llama family.
///
/// Field names follow Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Family of the model.
    pub architecture: Architecture,
    /// Width of the residual stream, `d_model`.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key/value heads; it divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Number of rows of the embedding.
    pub vocab_size: usize,
    /// Term that keeps the RMS norm finite.
    pub rms_norm_eps: f64,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Longest sequence, in tokens, for which the computation is that of the original model.
    pub max_position_embeddings: usize,
    /// Whether the unembedding is the transposed embedding (there is then no `lm_head.weight`).
    pub tie_word_embeddings: bool,
    /// Whether query, key and value projections have biases.
    pub attention_bias: bool,
    /// Token that begins a text, if the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
}

/// Why a configuration cannot be used.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A field that has no safe default is absent.
    #[error("field `{field}` is missing")]
    MissingField {
        /// The field.
        field: String,
    },
    /// A field has a value that cannot be right, or that is not supported.
    #[error("field `{field}` is {found}; expected {expected}")]
    Field {
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What is accepted.
        expected: String,
    },
}

impl ConfigError {
    #[expect(clippy::needless_pass_by_value, reason = "callers give literals and numbers")]
    fn field(field: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Field { field: field.into(), found: found.to_string(), expected: expected.into() }
    }
}

impl ModelConfig {
    /// Checks that the dimensions are possible and agree with each other.
    ///
    /// The upper limits are far above any published model. They keep a lying file from asking for absurd memory.
    ///
    /// # Errors
    /// [`ConfigError::Field`] names the first field at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("hidden_size", self.hidden_size, 1..=1 << 16)?;
        within("intermediate_size", self.intermediate_size, 1..=1 << 19)?;
        within("num_hidden_layers", self.num_hidden_layers, 1..=1 << 10)?;
        within("num_attention_heads", self.num_attention_heads, 1..=1 << 10)?;
        within("num_key_value_heads", self.num_key_value_heads, 1..=self.num_attention_heads)?;
        within("head_dim", self.head_dim, 2..=1 << 10)?;
        within("vocab_size", self.vocab_size, 1..=1 << 22)?;
        within("max_position_embeddings", self.max_position_embeddings, 1..=1 << 28)?;
        self.validate_heads()?;
        self.validate_constants()?;
        self.validate_tokens()
    }

    fn validate_heads(&self) -> Result<(), ConfigError> {
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let expected = format!("a divisor of `num_attention_heads`, {}", self.num_attention_heads);
            return Err(ConfigError::field("num_key_value_heads", self.num_key_value_heads, expected));
        }
        if !self.head_dim.is_multiple_of(2) {
            let expected = "an even number, because rotary embeddings turn pairs";
            return Err(ConfigError::field("head_dim", self.head_dim, expected));
        }
        Ok(())
    }

    fn validate_constants(&self) -> Result<(), ConfigError> {
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(ConfigError::field("rms_norm_eps", self.rms_norm_eps, "a number between 0 and 1"));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta <= 1e12) {
            return Err(ConfigError::field("rope_theta", self.rope_theta, "a number from 1 to 1e12"));
        }
        self.rope_scaling.as_ref().map_or(Ok(()), RopeScaling::validate)
    }

    fn validate_tokens(&self) -> Result<(), ConfigError> {
        let bos = self.bos_token_id.iter().map(|id| ("bos_token_id", *id));
        let eos = self.eos_token_ids.iter().map(|id| ("eos_token_id", *id));
        for (field, id) in bos.chain(eos) {
            within(field, id as usize, 0..=self.vocab_size - 1)?;
        }
        Ok(())
    }
}

/// Width of a head where a file leaves it to the other dimensions.
fn head_dim(hidden_size: usize, num_attention_heads: usize) -> Result<usize, ConfigError> {
    within("num_attention_heads", num_attention_heads, 1..=1 << 10)?;
    if !hidden_size.is_multiple_of(num_attention_heads) {
        let expected = format!("a divisor of `hidden_size`, {hidden_size}, or a field `head_dim`");
        return Err(ConfigError::field("num_attention_heads", num_attention_heads, expected));
    }
    Ok(hidden_size / num_attention_heads)
}

fn within(field: &str, found: usize, range: RangeInclusive<usize>) -> Result<(), ConfigError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(ConfigError::field(field, found, format!("{} to {}", range.start(), range.end())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `SmolLM2-135M` in all but size.
    pub(crate) fn tiny() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Llama,
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 1,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            vocab_size: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 100_000.0,
            rope_scaling: None,
            max_position_embeddings: 128,
            tie_word_embeddings: true,
            attention_bias: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
        }
    }

    #[track_caller]
    fn assert_rejects(field: &str, change: impl FnOnce(&mut ModelConfig)) {
        let mut config = tiny();
        change(&mut config);
        match config.validate() {
            Err(ConfigError::Field { field: found, .. }) => assert_eq!(found, field),
            other => panic!("expected an error about `{field}`, got {other:?}"),
        }
    }

    #[test]
    fn possible_configuration_is_accepted() {
        tiny().validate().unwrap();
    }

    #[test]
    fn zero_dimensions_are_rejected() {
        assert_rejects("hidden_size", |config| config.hidden_size = 0);
        assert_rejects("intermediate_size", |config| config.intermediate_size = 0);
        assert_rejects("num_hidden_layers", |config| config.num_hidden_layers = 0);
        assert_rejects("num_attention_heads", |config| config.num_attention_heads = 0);
        assert_rejects("num_key_value_heads", |config| config.num_key_value_heads = 0);
        assert_rejects("vocab_size", |config| config.vocab_size = 0);
        assert_rejects("max_position_embeddings", |config| config.max_position_embeddings = 0);
    }

    #[test]
    fn absurd_dimensions_are_rejected() {
        assert_rejects("hidden_size", |config| config.hidden_size = usize::MAX);
        assert_rejects("num_hidden_layers", |config| config.num_hidden_layers = 1 << 40);
        assert_rejects("vocab_size", |config| config.vocab_size = u32::MAX as usize);
    }

    #[test]
    fn heads_that_do_not_divide_are_rejected() {
        assert_rejects("num_key_value_heads", |config| config.num_key_value_heads = 3);
        assert_rejects("num_key_value_heads", |config| config.num_key_value_heads = 8);
        assert_rejects("head_dim", |config| config.head_dim = 7);
    }

    #[test]
    fn constants_that_are_no_numbers_are_rejected() {
        assert_rejects("rms_norm_eps", |config| config.rms_norm_eps = f64::NAN);
        assert_rejects("rms_norm_eps", |config| config.rms_norm_eps = 0.0);
        assert_rejects("rope_theta", |config| config.rope_theta = f64::INFINITY);
    }

    #[test]
    fn special_tokens_outside_of_the_vocabulary_are_rejected() {
        assert_rejects("bos_token_id", |config| config.bos_token_id = Some(64));
        assert_rejects("eos_token_id", |config| config.eos_token_ids = vec![2, 99]);
    }
}
