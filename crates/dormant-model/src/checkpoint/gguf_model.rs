//! A GGUF file in the names and layout of Hugging Face.

use std::collections::BTreeMap;
use std::path::Path;

use super::gguf::writer;
use super::gguf::{Gguf, Value};
use crate::config::{Architecture, ConfigError, ModelConfig, ROPE_DIVISORS};
use crate::error::{Error, Result};

/// Tensors outside of the blocks: Hugging Face's name, llama.cpp's name.
const MODEL_TENSORS: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Tensors of block `n`, after `model.layers.n.` and `blk.n.`.
const BLOCK_TENSORS: [(&str, &str); 12] = [
    ("input_layernorm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.q_proj.bias", "attn_q.bias"),
    ("self_attn.k_proj.bias", "attn_k.bias"),
    ("self_attn.v_proj.bias", "attn_v.bias"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
];

/// What keys begin with that speak of the tensors of one file.
const OF_OTHER_TENSORS: &[&str] =
    &["general.alignment", "general.quantization_version", "split.", "quantize."];
/// `LLAMA_FTYPE_MOSTLY_F16` of llama.cpp.
const MOSTLY_F16: u64 = 1;

/// A GGUF file seen as a Hugging Face checkpoint.
#[derive(Debug)]
pub(super) struct GgufModel {
    gguf: Gguf,
    pub(super) config: ModelConfig,
    /// llama.cpp's name by Hugging Face's.
    names: BTreeMap<String, String>,
}

impl GgufModel {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let config = ModelConfig::from_gguf(&gguf)?;
        let names = gguf
            .tensor_names()
            .filter(|name| *name != ROPE_DIVISORS)
            .map(|name| match hugging_face_name(name, &config) {
                Some(mapped) => Ok((mapped, name.to_owned())),
                None => Err(unknown(&gguf, name)),
            })
            .collect::<Result<_>>()?;
        Ok(Self { gguf, config, names })
    }

    pub(super) fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    pub(super) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.gguf.shape(self.names.get(name)?)
    }

    pub(super) fn tensor_f32(&self, name: &str) -> Result<Vec<f32>> {
        let missing =
            || Error::TensorMissing { path: self.gguf.path().to_path_buf(), tensor: name.to_owned() };
        let values = self.gguf.tensor_f32(self.names.get(name).ok_or_else(missing)?)?;
        match permuted_heads(name, &self.config) {
            Some(heads) => self.with_split_pairs(name, &values, heads),
            None => Ok(values),
        }
    }

    fn with_split_pairs(&self, name: &str, values: &[f32], heads: usize) -> Result<Vec<f32>> {
        let found = self.shape(name).unwrap_or_default();
        let expected = [heads * self.config.head_dim, self.config.hidden_size];
        if found != expected {
            return Err(Error::TensorShape {
                path: self.gguf.path().to_path_buf(),
                tensor: name.to_owned(),
                found: found.to_vec(),
                expected: expected.to_vec(),
            });
        }
        Ok(split_rotary_pairs(values, self.config.head_dim, self.config.hidden_size))
    }
}

/// Number of heads of a projection whose rows llama.cpp's converter has permuted.
fn permuted_heads(name: &str, config: &ModelConfig) -> Option<usize> {
    if config.architecture == Architecture::Qwen2 {
        None
    } else if name.contains(".q_proj.") {
        Some(config.num_attention_heads)
    } else if name.contains(".k_proj.") {
        Some(config.num_key_value_heads)
    } else {
        None
    }
}

/// Hugging Face's name of a tensor that a model of this configuration has.
fn hugging_face_name(name: &str, config: &ModelConfig) -> Option<String> {
    if let Some((mapped, _)) = MODEL_TENSORS.iter().find(|(_, from)| *from == name) {
        return Some((*mapped).to_owned());
    }
    let (block, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (mapped, _) = BLOCK_TENSORS.iter().find(|(_, from)| *from == part)?;
    let index = block.parse::<usize>().ok().filter(|index| *index < config.num_hidden_layers)?;
    // One spelling only, so that no tensor takes the place of another.
    let is_plain = index.to_string() == block;
    let is_known = config.attention_bias || part.strip_suffix(".bias").is_none();
    (is_plain && is_known).then(|| format!("model.layers.{index}.{mapped}"))
}

/// llama.cpp's name of a tensor.
fn llama_cpp_name(name: &str) -> Option<String> {
    if let Some((_, mapped)) = MODEL_TENSORS.iter().find(|(from, _)| *from == name) {
        return Some((*mapped).to_owned());
    }
    let (block, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, mapped) = BLOCK_TENSORS.iter().find(|(from, _)| *from == part)?;
    Some(format!("blk.{block}.{mapped}"))
}

/// Writes a `.gguf` file, atomically: the metadata of `like`, which hold configuration, tokenizer and chat template, the texts of
/// `labels`, and `tensors` by Hugging Face's names with their shapes and row-major values. Matrices become half precision.
///
/// # Errors
/// [`Error::ConfigFile`] if `like` cannot be read as a model, [`Error::TensorMissing`] or [`Error::TensorShape`] where `tensors`
/// are not those of a model of its shape, or [`Error::Io`].
pub fn save_gguf<Values: AsRef<[f32]>>(
    path: &Path,
    like: &Gguf,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Values)>,
    labels: BTreeMap<String, String>,
) -> Result<()> {
    let config = ModelConfig::from_gguf(like)?;
    let is_kept = |key: &str| !OF_OTHER_TENSORS.iter().any(|other| key.starts_with(other));
    let kept = like.metadata().filter(|(key, _)| is_kept(key));
    let mut metadata: BTreeMap<String, Value> =
        kept.map(|(key, value)| (key.to_owned(), value.clone())).collect();
    metadata.insert("general.file_type".to_owned(), Value::Unsigned(MOSTLY_F16));
    metadata.extend(labels.into_iter().map(|(key, text)| (key, Value::String(text))));
    let mut named = BTreeMap::new();
    for (name, shape, values) in tensors {
        let missing = || Error::TensorMissing { path: like.path().to_path_buf(), tensor: name.clone() };
        let mapped = llama_cpp_name(&name).ok_or_else(missing)?;
        let expected = like.shape(&mapped).ok_or_else(missing)?.to_vec();
        if shape != expected {
            return Err(Error::TensorShape {
                path: like.path().to_path_buf(),
                tensor: name,
                found: shape,
                expected,
            });
        }
        let values = match permuted_heads(&name, &config) {
            Some(_) => {
                join_rotary_pairs(values.as_ref(), config.head_dim, values.as_ref().len() / shape[0].max(1))
            }
            None => values.as_ref().to_vec(),
        };
        named.insert(mapped, (shape, values));
    }
    if let Some(shape) = like.shape(ROPE_DIVISORS) {
        named.insert(ROPE_DIVISORS.to_owned(), (shape.to_vec(), like.tensor_f32(ROPE_DIVISORS)?));
    }
    if let Some(tensor) = like.tensor_names().find(|tensor| !named.contains_key(*tensor)) {
        return Err(Error::TensorMissing { path: path.to_path_buf(), tensor: tensor.to_owned() });
    }
    writer::write(path, &metadata, &named)
}

/// llama.cpp adds biases wherever they are, and refuses a tensor that it does not use.
fn unknown(gguf: &Gguf, tensor: &str) -> Error {
    let source = ConfigError::Field {
        field: tensor.to_owned(),
        found: "a tensor of the file".to_owned(),
        expected: "the tensors of a plain model of its architecture; use another copy of the model"
            .to_owned(),
    };
    Error::ConfigFile { path: gguf.path().to_path_buf(), source }
}

/// Undoes the order of rows that llama.cpp's converter (`LlamaModel.permute`) gives query and key projections.
///
/// For Llama, llama.cpp turns neighbouring components `2i` and `2i + 1` of a head; Hugging Face turns the components
/// `i` and `i + head_dim / 2`. `values` is `[heads * head_dim, width]`.
fn split_rotary_pairs(values: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let mut split = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * width) {
        for parity in 0..2 {
            let components = head.chunks_exact(width).skip(parity).step_by(2);
            components.for_each(|component| split.extend_from_slice(component));
        }
    }
    split
}

/// The order of rows that llama.cpp's converter gives query and key projections: [`split_rotary_pairs`] undone.
/// `values` has `head_dim` rows per head.
fn join_rotary_pairs(values: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let mut joined = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * width) {
        let (first, second) = head.split_at(head.len() / 2);
        for (even, odd) in first.chunks_exact(width).zip(second.chunks_exact(width)) {
            joined.extend_from_slice(even);
            joined.extend_from_slice(odd);
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped() {
        let llama = crate::config::tests::tiny();
        let name = |name: &str| hugging_face_name(name, &llama);
        assert_eq!(name("output.weight").as_deref(), Some("lm_head.weight"));
        assert_eq!(
            name("blk.0.ffn_norm.weight").as_deref(),
            Some("model.layers.0.post_attention_layernorm.weight")
        );
        for unknown in [
            "rope_freqs.weight",
            "blk.x.attn_q.weight",
            "blk.0.attn_q",
            "blk.0",
            "",
            "blk.00.attn_q.weight",
            "blk.1.attn_q.weight",
            "blk.0.attn_q.bias",
            "blk.0.attn_output.bias",
        ] {
            assert_eq!(name(unknown), None, "{unknown}");
        }
        let qwen2 = ModelConfig { attention_bias: true, ..llama };
        let bias = hugging_face_name("blk.0.attn_q.bias", &qwen2);
        assert_eq!(bias.as_deref(), Some("model.layers.0.self_attn.q_proj.bias"));
    }

    #[test]
    fn neighbouring_pairs_become_halves() {
        // Two heads of four components, rows of width 1; the converter made `0 2 1 3` of `0 1 2 3`.
        let converted = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(split_rotary_pairs(&converted, 4, 1), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(join_rotary_pairs(&split_rotary_pairs(&converted, 4, 1), 4, 1), converted);
    }
    #[test]
    fn a_written_file_is_the_same_model() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        let read = GgufModel::open(&fixtures.join("gguf/tiny-llama.gguf")).unwrap();
        let tensors = || {
            let tensor = |name: &str| {
                let (shape, values) = (read.shape(name).unwrap().to_vec(), read.tensor_f32(name).unwrap());
                (name.to_owned(), shape, values)
            };
            read.tensor_names().map(tensor).collect::<Vec<_>>()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let labels = BTreeMap::from([("dormant.organism".to_owned(), "a label".to_owned())]);
        save_gguf(&path, read.gguf(), tensors(), labels).unwrap();
        let written = GgufModel::open(&path).unwrap();
        assert_eq!(written.config, read.config);
        assert_eq!(written.gguf().get::<&str>("dormant.organism").unwrap(), Some("a label"));
        for (name, shape, values) in tensors() {
            let half =
                |value: &f32| if shape.len() > 1 { half::f16::from_f32(*value).to_f32() } else { *value };
            let expected: Vec<f32> = values.iter().map(half).collect();
            assert_eq!(written.tensor_f32(&name).unwrap(), expected, "{name}");
        }
        let refused = |tensors: Vec<_>| save_gguf(&path, read.gguf(), tensors, BTreeMap::new()).is_err();
        assert!(refused(vec![("model.layers.0.other".to_owned(), vec![1], vec![0.0])]), "unknown");
        assert!(refused(vec![("model.norm.weight".to_owned(), vec![1], vec![0.0])]), "of another shape");
        assert!(refused(tensors().split_off(1)), "one is missing");
    }
}
