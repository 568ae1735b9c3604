//! `config.json` as written by `transformers`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Architecture, ConfigError, ModelConfig, RopeScaling};
use crate::error::{Error, Result};

/// The fields that change the computation. Absent fields mean the defaults of `LlamaConfig`.
#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// The place of `rope_theta` and `rope_scaling` since `transformers` 5.
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    max_position_embeddings: Option<usize>,
    /// Here, `transformers` prefers it to the field of the same name in `rope_parameters`.
    original_max_position_embeddings: Option<usize>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    quantization_config: Option<Value>,
    /// A file that `transformers` 5 loads in place of `model.safetensors`.
    transformers_weights: Option<Value>,
    bos_token_id: Option<TokenIds>,
    eos_token_id: Option<TokenIds>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// The older name of `rope_type`; files may have both.
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Several(Vec<u32>),
}

impl TokenIds {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

impl ModelConfig {
    /// Reads a `config.json` of Hugging Face's `transformers`.
    ///
    /// Where a model attends to a sliding window, `max_position_embeddings` is that window: up to there, both
    /// kinds of attention are equal.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`], or [`Error::ConfigFile`] for a field that is missing, impossible, or
    /// changes the computation in a way that is not supported.
    pub fn from_json(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let raw: RawConfig = serde_json::from_str(&text).map_err(Error::json(path))?;
        raw.resolve().map_err(|source| Error::ConfigFile { path: path.to_path_buf(), source })
    }

    /// The `config.json` from which `transformers` builds the same model, for weights in f32.
    pub fn to_json(&self) -> String {
        let (class, model_type) = match self.architecture {
            Architecture::Llama => ("LlamaForCausalLM", "llama"),
            Architecture::Mistral => ("MistralForCausalLM", "mistral"),
            Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        };
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling.as_ref().map(RopeScaling::to_json),
            "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_json(),
            "torch_dtype": "float32",
        });
        match self.architecture {
            Architecture::Llama => config["attention_bias"] = json!(false),
            Architecture::Mistral => config["sliding_window"] = Value::Null,
            Architecture::Qwen2 => config["use_sliding_window"] = json!(false),
        }
        format!("{config:#}\n")
    }

    fn eos_json(&self) -> Value {
        match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        }
    }
}

impl RopeScaling {
    fn to_json(&self) -> Value {
        json!({
            "rope_type": "llama3",
            "factor": self.factor,
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
            "original_max_position_embeddings": self.original_max_position_embeddings,
        })
    }
}

impl RawConfig {
    fn resolve(self) -> std::result::Result<ModelConfig, ConfigError> {
        let architecture = self.architecture()?;
        self.reject_other_computations(architecture)?;
        let hidden_size = required("hidden_size", self.hidden_size)?;
        let num_attention_heads = required("num_attention_heads", self.num_attention_heads)?;
        let config = ModelConfig {
            architecture,
            hidden_size,
            intermediate_size: required("intermediate_size", self.intermediate_size)?,
            num_hidden_layers: required("num_hidden_layers", self.num_hidden_layers)?,
            num_attention_heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(num_attention_heads),
            head_dim: match self.head_dim {
                Some(head_dim) => head_dim,
                None => super::head_dim(hidden_size, num_attention_heads)?,
            },
            vocab_size: required("vocab_size", self.vocab_size)?,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: self.rope_theta()?,
            rope_scaling: self.rope_scaling()?,
            max_position_embeddings: self.longest_exact_sequence(architecture)?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            attention_bias: architecture == Architecture::Qwen2,
            bos_token_id: self.bos_token_id.and_then(|ids| ids.into_vec().first().copied()),
            eos_token_ids: self.eos_token_id.map_or_else(Vec::new, TokenIds::into_vec),
        };
        config.validate()?;
        Ok(config)
    }

    fn architecture(&self) -> std::result::Result<Architecture, ConfigError> {
        match self.model_type.as_deref() {
            Some("llama" | "smollm") => Ok(Architecture::Llama),
            Some("mistral") => Ok(Architecture::Mistral),
            Some("qwen2") => Ok(Architecture::Qwen2),
            Some(other) => Err(ConfigError::field("model_type", other, "llama, mistral or qwen2")),
            None => Err(ConfigError::MissingField { field: "model_type".to_owned() }),
        }
    }

    /// Options of `transformers` under which this engine would compute something else than the model.
    fn reject_other_computations(&self, architecture: Architecture) -> std::result::Result<(), ConfigError> {
        if let Some(other) = self.hidden_act.as_deref().filter(|name| !matches!(*name, "silu" | "swish")) {
            return Err(ConfigError::field("hidden_act", other, "silu"));
        }
        // In `transformers`, this flag of Llama adds a bias to the output projection too.
        if self.attention_bias == Some(true) && architecture != Architecture::Qwen2 {
            return Err(ConfigError::field("attention_bias", true, "false, except for qwen2"));
        }
        if self.mlp_bias == Some(true) {
            return Err(ConfigError::field("mlp_bias", true, "false"));
        }
        if self.quantization_config.is_some() {
            return Err(ConfigError::field("quantization_config", "present", "weights in f32, f16 or bf16"));
        }
        if let Some(file) = &self.transformers_weights {
            let expected = "no such field: `transformers` would load that file and not `model.safetensors`; give the \
                            weights their usual name and take the field out";
            return Err(ConfigError::field("transformers_weights", file, expected));
        }
        let rope_parts = [self.rope_parameters.as_ref(), self.rope_scaling.as_ref()];
        let nested = rope_parts.into_iter().flatten().filter_map(|rope| rope.partial_rotary_factor);
        if let Some(part) = nested.chain(self.partial_rotary_factor).find(|part| *part != 1.0) {
            return Err(ConfigError::field("partial_rotary_factor", part, "1"));
        }
        Ok(())
    }

    /// Versions of `transformers` differ in which of several values they take.
    fn rope_theta(&self) -> std::result::Result<f64, ConfigError> {
        let nested = [&self.rope_scaling, &self.rope_parameters].into_iter().flatten();
        let mut stated = nested.filter_map(|rope| rope.rope_theta).chain(self.rope_theta);
        let Some(theta) = stated.next() else { return Ok(10_000.0) };
        match stated.find(|other| *other != theta) {
            Some(other) => {
                let expected = format!("{theta}, as in another place of the file; take one of the two out");
                Err(ConfigError::field("rope_theta", other, expected))
            }
            None => Ok(theta),
        }
    }

    fn rope_scaling(&self) -> std::result::Result<Option<RopeScaling>, ConfigError> {
        let resolve = |rope: &Option<RawRope>| rope.as_ref().map(RawRope::scaling).transpose();
        let (old, new) = (resolve(&self.rope_scaling)?, resolve(&self.rope_parameters)?);
        if old.is_some() && new.is_some() && old != new {
            let expected = "what `rope_parameters` says; take one of the two out";
            return Err(ConfigError::field("rope_scaling", "another one", expected));
        }
        let scaling = old.or(new).flatten();
        let original = scaling.as_ref().map(|scaling| scaling.original_max_position_embeddings);
        match (self.original_max_position_embeddings, original) {
            (Some(found), Some(original)) if found != original => {
                let expected = format!("{original}, as in `rope_scaling`; take one of the two out");
                Err(ConfigError::field("original_max_position_embeddings", found, expected))
            }
            _ => Ok(scaling),
        }
    }

    fn longest_exact_sequence(&self, architecture: Architecture) -> std::result::Result<usize, ConfigError> {
        let longest = required("max_position_embeddings", self.max_position_embeddings)?;
        let slides = match architecture {
            Architecture::Llama => false,
            Architecture::Mistral => true,
            Architecture::Qwen2 => self.use_sliding_window == Some(true),
        };
        let window = self.sliding_window.filter(|_| slides);
        Ok(window.map_or(longest, |window| longest.min(window)))
    }
}

impl RawRope {
    fn scaling(&self) -> std::result::Result<Option<RopeScaling>, ConfigError> {
        if let (Some(new), Some(old)) = (&self.rope_type, &self.old_type)
            && new != old
        {
            let expected = format!("{new}, as `rope_type` is; take one of the two out");
            return Err(ConfigError::field("rope_scaling.type", old, expected));
        }
        if let Some((kind, _)) = self.other.iter().find(|(_, value)| value.is_object()) {
            let field = format!("rope_parameters.{kind}");
            return Err(ConfigError::field(field, "there", "the same rotation in all layers"));
        }
        match self.rope_type.as_deref().or(self.old_type.as_deref()) {
            None | Some("default") => Ok(None),
            Some("llama3") => Ok(Some(RopeScaling {
                factor: required("rope_scaling.factor", self.factor)?,
                low_freq_factor: required("rope_scaling.low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: required("rope_scaling.high_freq_factor", self.high_freq_factor)?,
                original_max_position_embeddings: required(
                    "rope_scaling.original_max_position_embeddings",
                    self.original_max_position_embeddings,
                )?,
            })),
            Some(other) => Err(ConfigError::field("rope_scaling.rope_type", other, "default or llama3")),
        }
    }
}

fn required<T>(field: &str, value: Option<T>) -> std::result::Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::MissingField { field: field.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;

    const SMOLLM2: &str = include_str!("../../tests/data/smollm2-135m-config.json");

    fn read(text: &str) -> Result<ModelConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, text).unwrap();
        ModelConfig::from_json(&path)
    }

    fn smollm2_with(field: &str, value: Value) -> Result<ModelConfig> {
        let mut json: Value = serde_json::from_str(SMOLLM2).unwrap();
        json[field] = value;
        read(&json.to_string())
    }

    #[track_caller]
    fn assert_names(result: Result<ModelConfig>, expected: &str) {
        match result {
            Err(Error::ConfigFile {
                source: ConfigError::Field { field, .. } | ConfigError::MissingField { field },
                ..
            }) => assert_eq!(field, expected),
            other => panic!("expected an error about `{expected}`, got {other:?}"),
        }
    }

    #[test]
    fn smollm2_is_read() {
        let config = read(SMOLLM2).unwrap();
        assert_eq!(
            config,
            ModelConfig {
                hidden_size: 576,
                intermediate_size: 1536,
                num_hidden_layers: 30,
                num_attention_heads: 9,
                num_key_value_heads: 3,
                head_dim: 64,
                vocab_size: 49152,
                max_position_embeddings: 8192,
                ..tiny()
            }
        );
    }

    #[test]
    fn written_configuration_is_read_back() {
        let scaling = RopeScaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        for config in [
            tiny(),
            ModelConfig { rope_scaling: Some(scaling), eos_token_ids: vec![2, 3], ..tiny() },
            ModelConfig { architecture: Architecture::Mistral, bos_token_id: None, ..tiny() },
            ModelConfig { architecture: Architecture::Qwen2, attention_bias: true, ..tiny() },
        ] {
            assert_eq!(read(&config.to_json()).unwrap(), config);
        }
    }

    #[test]
    fn rope_parameters_of_transformers_5_are_read() {
        let mut json: Value = serde_json::from_str(SMOLLM2).unwrap();
        json["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5e5});
        assert_names(read(&json.to_string()), "rope_theta");
        json.as_object_mut().unwrap().remove("rope_theta");
        assert_eq!(read(&json.to_string()).unwrap().rope_theta, 5e5);
        let layers = json!({"full_attention": {"rope_type": "yarn"}});
        assert_names(smollm2_with("rope_parameters", layers), "rope_parameters.full_attention");
    }

    fn llama3() -> Value {
        json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192})
    }

    #[test]
    fn two_names_of_one_rope_type_have_to_agree() {
        let mut rope = llama3();
        rope["type"] = json!("llama3");
        let config = smollm2_with("rope_scaling", rope.clone()).unwrap();
        assert_eq!(config.rope_scaling.unwrap().factor, 32.0);
        rope["type"] = json!("default");
        assert_names(smollm2_with("rope_scaling", rope), "rope_scaling.type");
    }

    #[test]
    fn two_places_of_one_rope_scaling_have_to_agree() {
        let mut json: Value = serde_json::from_str(SMOLLM2).unwrap();
        (json["rope_scaling"], json["rope_parameters"]) = (llama3(), llama3());
        assert!(read(&json.to_string()).unwrap().rope_scaling.is_some());
        json["original_max_position_embeddings"] = json!(4096);
        assert_names(read(&json.to_string()), "original_max_position_embeddings");
        json["rope_parameters"] = json!({"rope_type": "default"});
        assert_names(read(&json.to_string()), "rope_scaling");
        json["rope_scaling"] = json!({"rope_type": "default", "rope_theta": 7.0});
        assert_names(read(&json.to_string()), "rope_theta");
    }

    #[test]
    fn a_weights_file_named_by_the_configuration_is_refused() {
        assert_names(
            smollm2_with("transformers_weights", json!("other.safetensors")),
            "transformers_weights",
        );
        smollm2_with("transformers_weights", Value::Null).unwrap();
    }

    #[test]
    fn sliding_window_bounds_the_context() {
        let mut json: Value = serde_json::from_str(SMOLLM2).unwrap();
        json["sliding_window"] = json!(4096);
        assert_eq!(read(&json.to_string()).unwrap().max_position_embeddings, 8192);
        json["model_type"] = json!("mistral");
        assert_eq!(read(&json.to_string()).unwrap().max_position_embeddings, 4096);
        json["model_type"] = json!("qwen2");
        assert_eq!(read(&json.to_string()).unwrap().max_position_embeddings, 8192);
    }

    #[test]
    fn other_computations_are_rejected() {
        assert_names(smollm2_with("model_type", json!("gpt2")), "model_type");
        assert_names(smollm2_with("hidden_act", json!("gelu")), "hidden_act");
        assert_names(smollm2_with("attention_bias", json!(true)), "attention_bias");
        assert_names(smollm2_with("mlp_bias", json!(true)), "mlp_bias");
        assert_names(smollm2_with("partial_rotary_factor", json!(0.5)), "partial_rotary_factor");
        assert_names(smollm2_with("quantization_config", json!({"bits": 4})), "quantization_config");
        let yarn = json!({"rope_type": "yarn", "factor": 4.0});
        assert_names(smollm2_with("rope_scaling", yarn), "rope_scaling.rope_type");
        let bare = json!({"type": "llama3", "factor": 4.0});
        assert_names(smollm2_with("rope_scaling", bare), "rope_scaling.low_freq_factor");
    }

    #[test]
    fn missing_and_impossible_fields_are_rejected() {
        assert_names(smollm2_with("hidden_size", Value::Null), "hidden_size");
        assert_names(smollm2_with("num_attention_heads", json!(7)), "num_attention_heads");
        assert_names(smollm2_with("num_key_value_heads", json!(2)), "num_key_value_heads");
        assert_names(smollm2_with("num_attention_heads", json!(0)), "num_attention_heads");
        assert!(matches!(smollm2_with("vocab_size", json!(-1)), Err(Error::Json { .. })));
        assert!(matches!(read("{"), Err(Error::Json { .. })));
    }
}
