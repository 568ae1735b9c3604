//! The configuration in the metadata and tensor shapes of a GGUF file.

use super::{Architecture, ConfigError, ModelConfig, RopeScaling};
use crate::checkpoint::gguf::{FromValue, Gguf};
use crate::error::{Error, Result};

const EMBEDDING: &str = "token_embd.weight";
/// Read as [`ModelConfig::rope_scaling`].
pub(crate) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Metadata keys of one architecture: `llama.block_count`, ...
struct Section<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

impl<'a> Section<'a> {
    fn get<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>> {
        self.gguf.get(&format!("{}.{key}", self.prefix))
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.gguf.require::<u32>(&format!("{}.{key}", self.prefix)).map(|size| size as usize)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.get::<u32>(key)?.map(|size| size as usize))
    }

    /// Refuses a value under which this engine would compute something else than the model.
    fn reject<T: FromValue<'a> + ToString>(
        &self,
        key: &str,
        expected: &str,
        accepts: impl FnOnce(&T) -> bool,
    ) -> Result<()> {
        match self.get::<T>(key)?.filter(|value| !accepts(value)) {
            None => Ok(()),
            Some(other) => {
                let field = format!("{}.{key}", self.prefix);
                Err(self.error(ConfigError::field(field, other, expected)))
            }
        }
    }

    fn error(&self, source: ConfigError) -> Error {
        Error::ConfigFile { path: self.gguf.path().to_path_buf(), source }
    }
}

impl ModelConfig {
    /// Reads the configuration of a model of the architectures `llama` (which includes Mistral) and `qwen2`.
    ///
    /// The vocabulary is as large as the embedding, and the unembedding is tied when there is no tensor for it.
    /// Where a model attends to a sliding window, `max_position_embeddings` is that window.
    ///
    /// # Errors
    /// [`Error::Gguf`] for metadata of a wrong type, [`Error::ConfigFile`] for a field that is missing, impossible,
    /// or changes the computation in a way that is not supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let prefix: &str = gguf.require("general.architecture")?;
        let section = Section { gguf, prefix };
        let architecture = match prefix {
            "llama" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            other => {
                let source = ConfigError::field("general.architecture", other, "llama or qwen2");
                return Err(section.error(source));
            }
        };
        let mut config = read(&section, architecture)?;
        config.validate().map_err(|source| section.error(source))?;
        config.rope_scaling = rope_scaling(&section, &config)?;
        Ok(config)
    }
}

fn read(section: &Section<'_>, architecture: Architecture) -> Result<ModelConfig> {
    let hidden_size = section.size("embedding_length")?;
    let num_attention_heads = section.size("attention.head_count")?;
    let head_dim = match section.optional_size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => super::head_dim(hidden_size, num_attention_heads).map_err(|source| section.error(source))?,
    };
    reject_other_computations(section, head_dim)?;
    let context = section.size("context_length")?;
    let window = section.optional_size("attention.sliding_window")?.filter(|window| *window > 0);
    Ok(ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: section.size("feed_forward_length")?,
        num_hidden_layers: section.size("block_count")?,
        num_attention_heads,
        num_key_value_heads: section.optional_size("attention.head_count_kv")?.unwrap_or(num_attention_heads),
        head_dim,
        vocab_size: vocabulary(section)?,
        rms_norm_eps: section
            .gguf
            .require(&format!("{}.attention.layer_norm_rms_epsilon", section.prefix))?,
        rope_theta: section.get("rope.freq_base")?.unwrap_or(10_000.0),
        rope_scaling: None,
        max_position_embeddings: window.map_or(context, |window| context.min(window)),
        tie_word_embeddings: section.gguf.shape("output.weight").is_none(),
        attention_bias: architecture == Architecture::Qwen2,
        bos_token_id: section.gguf.get("tokenizer.ggml.bos_token_id")?,
        eos_token_ids: section.gguf.get("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
    })
}

fn reject_other_computations(section: &Section<'_>, head_dim: usize) -> Result<()> {
    let is_head_dim = |size: &u32| *size as usize == head_dim;
    section.reject("rope.dimension_count", "the width of a head", is_head_dim)?;
    section.reject("attention.value_length", "the width of a head", is_head_dim)?;
    section.reject("rope.scaling.type", "none", |kind: &&str| *kind == "none")?;
    section.reject("expert_count", "0 (a dense model)", |count: &u32| *count == 0)?;
    // llama.cpp scales linearly by these if no type is given.
    let is_unscaled = |factor: &f64| [0.0, 1.0].contains(factor);
    section.reject("rope.scaling.factor", "0 or 1 (no scaling)", is_unscaled)?;
    section.reject("rope.scale_linear", "0 or 1 (no scaling)", is_unscaled)?;
    section.reject("rope.scaling.attn_factor", "1 (no scaling)", |factor: &f64| *factor == 1.0)
}

fn vocabulary(section: &Section<'_>) -> Result<usize> {
    match section.gguf.shape(EMBEDDING) {
        Some(&[vocabulary, _]) => Ok(vocabulary),
        Some(other) => {
            let found = format!("a tensor of shape {other:?}");
            Err(section.error(ConfigError::field(EMBEDDING, found, "a matrix")))
        }
        None => Err(section.error(ConfigError::MissingField { field: EMBEDDING.to_owned() })),
    }
}

/// Recovers the scaling of Llama 3.1 and later, of which GGUF keeps only the resulting divisor of each frequency.
///
/// All published models differ in `factor` alone, which is the last divisor. The result is checked against all
/// divisors, so that a model with other constants is refused and not computed wrongly.
fn rope_scaling(section: &Section<'_>, unscaled: &ModelConfig) -> Result<Option<RopeScaling>> {
    if section.gguf.shape(ROPE_DIVISORS).is_none() {
        return Ok(None);
    }
    if section.gguf.shape(ROPE_DIVISORS) != Some(&[unscaled.head_dim / 2]) {
        let expected = "a list of half the width of a head";
        return Err(section.error(ConfigError::field(ROPE_DIVISORS, "of another shape", expected)));
    }
    let divisors = section.gguf.tensor_f32(ROPE_DIVISORS)?;
    let scaling = RopeScaling {
        factor: divisors.last().copied().unwrap_or(1.0).into(),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    scaling.validate().map_err(|source| section.error(source))?;
    let explains = unscaled
        .rope_frequencies()
        .into_iter()
        .zip(&divisors)
        .all(|(frequency, divisor)| (scaling.divisor(frequency) / divisor - 1.0).abs() < 1e-3);
    if explains {
        return Ok(Some(scaling));
    }
    Err(section.error(ConfigError::field(ROPE_DIVISORS, "of an unknown kind", "the scaling of Llama 3")))
}
