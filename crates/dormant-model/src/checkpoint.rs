//! Weights in: model folders and GGUF files behind one interface, in Hugging Face's names and layout.

mod encoding;
mod file;
mod folder;
pub mod gguf;
mod gguf_model;
pub mod safetensors;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::atomic::atomic_write;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use folder::Folder;
pub(crate) use folder::refuse_pickles;
use gguf::Gguf;
use gguf_model::GgufModel;
pub use gguf_model::save_gguf;

/// An open model on disk. Tensors are read and decoded one at a time.
#[derive(Debug)]
pub struct Checkpoint {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Folder(Folder),
    Gguf(GgufModel),
}

impl Checkpoint {
    /// Opens a folder with `config.json` and safetensors files (one, or sharded by
    /// `model.safetensors.index.json`), or a `.gguf` file. Headers are checked against the lengths of the files.
    ///
    /// # Errors
    /// [`Error::NotAModel`] for any other path; otherwise the field, tensor, shard or length at fault.
    pub fn open(path: &Path) -> Result<Self> {
        // A path that is not there, or not readable, says so itself.
        let kind = fs::metadata(path).map_err(Error::io("open", path))?;
        let source = if kind.is_dir() && path.join(folder::CONFIG).exists() {
            Source::Folder(Folder::open(path)?)
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "gguf") {
            Source::Gguf(GgufModel::open(path)?)
        } else {
            return Err(Error::NotAModel { path: path.to_path_buf() });
        };
        Ok(Self { source })
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        match &self.source {
            Source::Folder(folder) => folder.path(),
            Source::Gguf(model) => model.gguf().path(),
        }
    }

    /// Dimensions and constants of the model.
    pub fn config(&self) -> &ModelConfig {
        match &self.source {
            Source::Folder(folder) => &folder.config,
            Source::Gguf(model) => &model.config,
        }
    }

    /// Hugging Face's names of the tensors, sorted: `model.layers.0.self_attn.q_proj.weight`, ...
    pub fn tensor_names(&self) -> Vec<&str> {
        match &self.source {
            Source::Folder(folder) => folder.tensor_names().collect(),
            Source::Gguf(model) => model.tensor_names().collect(),
        }
    }

    /// Shape of a tensor; projections are `[out, in]`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match &self.source {
            Source::Folder(folder) => folder.shape(name),
            Source::Gguf(model) => model.shape(name),
        }
    }

    /// The values of a tensor, row-major, in Hugging Face's layout whatever the file.
    ///
    /// # Errors
    /// [`Error::TensorMissing`], [`Error::TensorShape`] when the shape is not `expected`, [`Error::TensorType`],
    /// or [`Error::Io`].
    pub fn tensor_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let found = self.shape(name).ok_or_else(|| Error::TensorMissing {
            path: self.path().to_path_buf(),
            tensor: name.to_owned(),
        })?;
        if found != expected {
            return Err(Error::TensorShape {
                path: self.path().to_path_buf(),
                tensor: name.to_owned(),
                found: found.to_vec(),
                expected: expected.to_vec(),
            });
        }
        match &self.source {
            Source::Folder(folder) => folder.tensor_f32(name),
            Source::Gguf(model) => model.tensor_f32(name),
        }
    }

    /// The GGUF file, whose metadata holds tokenizer and chat template.
    pub fn gguf_metadata(&self) -> Option<&Gguf> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Gguf(model) => Some(model.gguf()),
        }
    }

    /// The text metadata of the safetensors files, such as `dormant.organism`. Empty for GGUF.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match &self.source {
            Source::Folder(folder) => folder.metadata(),
            Source::Gguf(_) => BTreeMap::new(),
        }
    }
}

/// Writes `model.safetensors` (f32) and `config.json` into an existing folder, each atomically.
///
/// Equal input gives equal bytes. `tensors` gives Hugging Face's names, shapes and row-major values. The metadata
/// entry `format`, which `transformers` demands, is added.
///
/// # Errors
/// As [`safetensors::write_safetensors`].
pub fn save_safetensors<Values: AsRef<[f32]>>(
    folder: &Path,
    config: &ModelConfig,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Values)>,
    mut metadata: BTreeMap<String, String>,
) -> Result<()> {
    metadata.insert("format".to_owned(), "pt".to_owned());
    safetensors::write_safetensors(&folder.join(folder::WEIGHTS), tensors, &metadata)?;
    atomic_write(&folder.join(folder::CONFIG), |file| file.write_all(config.to_json().as_bytes()))
}
