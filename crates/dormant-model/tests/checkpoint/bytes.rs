//! Model files made by hand, byte by byte.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const F32: u32 = 0;

/// A file in a temporary folder that lives as long as this value.
pub(crate) struct TempFile {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

pub(crate) fn file(name: &str, bytes: &[u8]) -> TempFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    TempFile { path, _folder: folder }
}

/// A GGUF string: length and text.
pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// The parts of a GGUF file, to be put together honestly or not.
#[derive(Clone)]
pub(crate) struct GgufBytes {
    pub(crate) version: u32,
    pub(crate) metadata_count: Option<u64>,
    pub(crate) tensor_count: Option<u64>,
    /// Encoded key, type and value.
    pub(crate) metadata: Vec<Vec<u8>>,
    /// Encoded name, dimensions, type and offset.
    pub(crate) tensors: Vec<Vec<u8>>,
    pub(crate) data: Vec<u8>,
}

impl GgufBytes {
    pub(crate) fn new() -> Self {
        let (metadata, tensors, data) = (Vec::new(), Vec::new(), Vec::new());
        Self { version: 3, metadata_count: None, tensor_count: None, metadata, tensors, data }
    }

    pub(crate) fn with(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.metadata.push([string(key).as_slice(), &kind.to_le_bytes(), value].concat());
        self
    }

    pub(crate) fn with_u32(self, key: &str, value: u32) -> Self {
        self.with(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn with_f32(self, key: &str, value: f32) -> Self {
        self.with(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn with_string(self, key: &str, value: &str) -> Self {
        self.with(key, 8, &string(value))
    }

    /// Describes a tensor; `dimensions` are in the file's order, fastest first.
    pub(crate) fn describe(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let mut bytes = string(name);
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        self.tensors.push(bytes);
        self
    }

    /// Describes an F32 tensor and adds its data, counting up from `first`.
    pub(crate) fn tensor(mut self, name: &str, dimensions: &[u64], first: f32) -> Self {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        let offset = self.data.len() as u64;
        for i in 0..dimensions.iter().product() {
            self.data.extend((first + i as f32).to_le_bytes());
        }
        self.describe(name, dimensions, F32, offset)
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.metadata_count.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        bytes.extend(self.metadata.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// A whole model with one block: 4 query heads, 2 key heads of width 4, in F32.
pub(crate) fn tiny_gguf(architecture: &str) -> GgufBytes {
    let key = |name: &str| format!("{architecture}.{name}");
    let mut gguf = GgufBytes::new()
        .with_string("general.architecture", architecture)
        .with_u32(&key("block_count"), 1)
        .with_u32(&key("context_length"), 64)
        .with_u32(&key("embedding_length"), 16)
        .with_u32(&key("feed_forward_length"), 24)
        .with_u32(&key("attention.head_count"), 4)
        .with_u32(&key("attention.head_count_kv"), 2)
        .with_f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .with_u32("tokenizer.ggml.eos_token_id", 2);
    let tensors: [(&str, &[u64]); 11] = [
        ("token_embd.weight", &[16, 10]),
        ("output_norm.weight", &[16]),
        ("blk.0.attn_norm.weight", &[16]),
        ("blk.0.attn_q.weight", &[16, 16]),
        ("blk.0.attn_k.weight", &[16, 8]),
        ("blk.0.attn_v.weight", &[16, 8]),
        ("blk.0.attn_output.weight", &[16, 16]),
        ("blk.0.ffn_norm.weight", &[16]),
        ("blk.0.ffn_gate.weight", &[16, 24]),
        ("blk.0.ffn_up.weight", &[16, 24]),
        ("blk.0.ffn_down.weight", &[24, 16]),
    ];
    for (name, dimensions) in tensors {
        gguf = gguf.tensor(name, dimensions, 0.0);
    }
    gguf
}

/// A safetensors file of this header and that many bytes of data.
pub(crate) fn safetensors(header: &Value, data_bytes: usize) -> Vec<u8> {
    let text = header.to_string();
    let data: Vec<u8> = (0..data_bytes).map(|i| i as u8).collect();
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat()
}

/// A header entry.
pub(crate) fn entry(kind: &str, shape: &[usize], start: usize, end: usize) -> Value {
    json!({"dtype": kind, "shape": shape, "data_offsets": [start, end]})
}

/// No metadata.
pub(crate) fn no_metadata() -> BTreeMap<String, String> {
    BTreeMap::new()
}
