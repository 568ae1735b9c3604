//! Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! `peft.PeftModel.from_pretrained` loads what [`write_adapter`] writes, and [`read_adapter`] loads what PEFT saves,
//! as far as it is `LoRA`, `rsLoRA` or `DoRA` on linear layers and embeddings. Anything else is refused by name.

mod config;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

pub use config::{AdapterConfig, TargetModules};

use crate::atomic::atomic_write;
use crate::checkpoint::refuse_pickles;
use crate::checkpoint::safetensors::{SafetensorsFile, write_safetensors};
use crate::error::{Error, Result};
use targets::Targets;

/// The embeddings, the one module of a model that is no linear layer and can be adapted.
pub(crate) const EMBEDDING: &str = "model.embed_tokens";
/// The output layer, which may share its weight with the embeddings.
pub(crate) const HEAD: &str = "lm_head";

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
const SUFFIX_A: &str = ".lora_A.weight";
const SUFFIX_B: &str = ".lora_B.weight";
/// The factors of embeddings: `[rank, vocabulary]` and `[dimension, rank]`.
const EMBEDDING_A: &str = ".lora_embedding_A";
const EMBEDDING_B: &str = ".lora_embedding_B";
const MAGNITUDE: &str = ".lora_magnitude_vector";
const FACTORS: [&str; 5] = [SUFFIX_A, SUFFIX_B, EMBEDDING_A, EMBEDDING_B, MAGNITUDE];
/// The module below the factors, whose weight PEFT saves by itself for embeddings and the output layer.
const BASE_LAYER: &str = ".base_layer";

/// An adapter that is damaged or uses something that is not supported.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A feature of PEFT that would change the model's output.
    #[error(
        "{}: field `{field}` is {found}; only {expected} is supported: merge the adapter into its model with PEFT \
         and use the merged model", path.display()
    )]
    Unsupported {
        /// The `adapter_config.json`.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// The value that is supported.
        expected: &'static str,
    },

    /// A number of the configuration makes no sense.
    #[error("{}: field `{field}` is {found}; expected {expected}", path.display())]
    Value {
        /// The `adapter_config.json`.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What was expected.
        expected: &'static str,
    },

    /// A tensor whose name is not that of a `LoRA` factor.
    #[error(
        "{}: tensor `{tensor}` is no LoRA factor; expected `base_model.model.<module>.lora_A.weight`, \
         `….lora_B.weight` and the like", path.display()
    )]
    TensorName {
        /// The `adapter_model.safetensors`.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A tensor that PEFT passes over when it loads the adapter, so that it would have an effect in this crate alone.
    #[error(
        "{}: PEFT does not load tensor `{tensor}`: {reason}; load the adapter with PEFT and save it again, which leaves \
         the tensor out", path.display()
    )]
    Ignored {
        /// The `adapter_model.safetensors`.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why it has no place.
        reason: &'static str,
    },

    /// A tensor does not have the shape that rank and partner imply.
    #[error("{}: tensor `{tensor}` has shape {found:?}; expected {expected}", path.display())]
    TensorShape {
        /// The `adapter_model.safetensors`.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape expected, in words.
        expected: String,
    },

    /// A tensor holds a number that is infinite or not a number.
    #[error("{}: tensor `{tensor}` holds a value that is not finite; the training diverged or the file is corrupt", path.display())]
    NotFinite {
        /// The `adapter_model.safetensors`.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// The file has no `LoRA` factors.
    #[error("{}: there are no LoRA factors in this file", path.display())]
    Empty {
        /// The `adapter_model.safetensors`.
        path: PathBuf,
    },
}

/// A matrix, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// `[rows, columns]`.
    pub values: Vec<f32>,
}

/// The two factors of the adapter of one layer: `W + s B A`. Embeddings are a layer whose outputs are the tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTensor {
    /// The layer, as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// `[rank, input]`.
    pub a: Matrix,
    /// `[output, rank]`.
    pub b: Matrix,
    /// What the changed weight is scaled to.
    pub magnitude: Option<Magnitude>,
}

impl AdapterTensor {
    /// Plain factors.
    pub fn new(module: String, a: Matrix, b: Matrix) -> Self {
        Self { module, a, b, magnitude: None }
    }
}

/// Norms of a changed weight `W + s B A`, which `DoRA` trains by themselves (Liu et al. 2024, equation 5).
#[derive(Clone, Debug, PartialEq)]
pub enum Magnitude {
    /// Of each row, `[output]`.
    Rows(Vec<f32>),
    /// Of each column, `[input]`: as PEFT does for embeddings.
    Columns(Vec<f32>),
}

/// Reads an adapter folder. The layers come sorted by name; their weights may be f32, f16 or bf16.
///
/// # Errors
/// [`Error::Io`] or [`Error::Json`] for an unreadable file; [`Error::Pickled`] for PyTorch's own format; [`Error::Adapter`] for a feature that is not supported,
/// or a tensor whose name, shape or rank does not fit; the errors of [`SafetensorsFile`].
pub fn read_adapter(folder: &Path) -> Result<(AdapterConfig, Vec<AdapterTensor>)> {
    let config = AdapterConfig::read(folder)?;
    let weights = folder.join(WEIGHTS);
    if !weights.exists() {
        refuse_pickles(folder)?;
    }
    let file = SafetensorsFile::open(&weights)?;
    let tensors = modules(&file, &config, &Targets::new(&config, &folder.join(CONFIG))?)?
        .into_iter()
        .map(|module| read_pair(&file, &config, module))
        .collect::<Result<Vec<_>>>()?;
    if tensors.is_empty() && !file.tensor_names().iter().any(|name| saved_name(name, &config).is_some()) {
        return Err(AdapterError::Empty { path: file.path().to_path_buf() }.into());
    }
    Ok((config, tensors))
}

/// A weight that takes the place of the model's.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTensor {
    /// Its name in the model, as `lm_head.weight`.
    pub name: String,
    /// Whether it is copied into the model's own weight, and so into the one that is tied to it: a weight below factors (`base_layer`),
    /// or embeddings that PEFT saved beside the factors. What was trained as a whole (`modules_to_save`) is no longer tied.
    pub is_base: bool,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// Reads the whole weights of an adapter folder, sorted by name: those of `modules_to_save`, and those below factors.
///
/// # Errors
/// As [`read_adapter`].
pub fn read_saved(folder: &Path, config: &AdapterConfig) -> Result<Vec<SavedTensor>> {
    let file = SafetensorsFile::open(&folder.join(WEIGHTS))?;
    let mut saved = Vec::new();
    for tensor in file.tensor_names() {
        let Some(SavedName { module, kind, place }) = saved_name(&tensor, config) else { continue };
        let is_base = place != Place::Copy;
        let values = finite(&file, &tensor)?;
        let shape = file.shape(&tensor).unwrap_or_default().to_vec();
        saved.push(SavedTensor { name: format!("{module}.{kind}"), is_base, shape, values });
    }
    saved.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(saved)
}

/// What a tensor that takes the place of a weight stands for.
struct SavedName<'a> {
    module: &'a str,
    /// `weight` or `bias`.
    kind: &'a str,
    place: Place,
}

/// Where a whole weight comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `modules_to_save`: a copy of the module that was trained.
    Copy,
    /// The weight below factors.
    BelowFactors,
    /// A weight of the model itself: PEFT saves embeddings and output layer whole if it is told to (`save_embedding_layers`).
    Own,
}

fn saved_name<'a>(tensor: &'a str, config: &AdapterConfig) -> Option<SavedName<'a>> {
    let (module, kind) = tensor.strip_prefix(PREFIX)?.rsplit_once('.')?;
    if !["weight", "bias"].contains(&kind) {
        return None;
    }
    if let Some(module) = module.strip_suffix(BASE_LAYER) {
        return Some(SavedName { module, kind, place: Place::BelowFactors });
    }
    if config.saves(module) {
        return Some(SavedName { module, kind, place: Place::Copy });
    }
    let is_end = kind == "weight" && [EMBEDDING, HEAD].contains(&module);
    is_end.then_some(SavedName { module, kind, place: Place::Own })
}

/// The modules that have a factor in the file, sorted. Whatever PEFT would not load is refused.
fn modules(file: &SafetensorsFile, config: &AdapterConfig, targets: &Targets<'_>) -> Result<Vec<String>> {
    let mut modules = BTreeSet::new();
    for tensor in file.tensor_names() {
        let path = || file.path().to_path_buf();
        let saved = saved_name(&tensor, config);
        let factor = factor_name(&tensor, config);
        let (module, misplaced) = match (&saved, factor) {
            (Some(SavedName { module, place: Place::Own, .. }), _) if targets.objection(module).is_none() => {
                let reason = "its module has factors, and what is below them has another name";
                return Err(AdapterError::Ignored { path: path(), tensor, reason }.into());
            }
            (Some(SavedName { place: Place::Copy | Place::Own, .. }), _) => continue,
            (Some(SavedName { module, .. }), _) => (*module, None),
            (None, Some((module, suffix))) => (module, misplaced(module, suffix)),
            (None, None) => return Err(AdapterError::TensorName { path: path(), tensor }.into()),
        };
        if let Some(reason) = misplaced.or_else(|| targets.objection(module)) {
            return Err(AdapterError::Ignored { path: path(), tensor, reason }.into());
        }
        if saved.is_none() {
            modules.insert(module.to_owned());
        }
    }
    Ok(modules.into_iter().collect())
}

/// The module and the end of the name of a factor.
fn factor_name<'a>(tensor: &'a str, config: &AdapterConfig) -> Option<(&'a str, &'static str)> {
    let name = tensor.strip_prefix(PREFIX)?;
    let mut known = FACTORS.into_iter().filter(|suffix| config.use_dora || *suffix != MAGNITUDE);
    let factor = known.find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix)));
    factor.filter(|(module, _)| !module.is_empty())
}

/// Why a factor of this kind has no place in the module, if it has none.
fn misplaced(module: &str, suffix: &str) -> Option<&'static str> {
    match (suffix, module == EMBEDDING) {
        (EMBEDDING_A | EMBEDDING_B, false) => Some("only embeddings have factors of this kind"),
        (SUFFIX_A | SUFFIX_B, true) => Some("embeddings have no factors of this kind"),
        _ => None,
    }
}

fn read_pair(file: &SafetensorsFile, config: &AdapterConfig, module: String) -> Result<AdapterTensor> {
    let rank = config.rank(&module);
    let name = |suffix: &str| format!("{PREFIX}{module}{suffix}");
    let is_embedding = module == EMBEDDING;
    let [name_a, name_b] =
        if is_embedding { [EMBEDDING_A, EMBEDDING_B] } else { [SUFFIX_A, SUFFIX_B] }.map(name);
    let a = read_matrix(file, &name_a)?;
    let b = read_matrix(file, &name_b)?;
    let wrong_rank = |tensor: String, matrix: &Matrix, expected: String| AdapterError::TensorShape {
        path: file.path().to_path_buf(),
        tensor,
        found: vec![matrix.rows, matrix.columns],
        expected,
    };
    if a.rows != rank {
        return Err(wrong_rank(name_a, &a, format!("{rank} rows, the rank in {CONFIG}")).into());
    }
    if b.columns != rank {
        return Err(wrong_rank(name_b, &b, format!("{rank} columns, the rank in {CONFIG}")).into());
    }
    // Embeddings are stored as `[tokens, dimension]`, and their change as `(B A)ᵀ`.
    let (a, b) = if is_embedding { (b.transposed(), a.transposed()) } else { (a, b) };
    let norms = |length| read_magnitude(file, &name(MAGNITUDE), length);
    let magnitude = match (config.use_dora, is_embedding) {
        (true, true) => Some(Magnitude::Columns(norms(a.columns)?)),
        (true, false) => Some(Magnitude::Rows(norms(b.rows)?)),
        (false, _) => None,
    };
    Ok(AdapterTensor { module, a, b, magnitude })
}

fn read_magnitude(file: &SafetensorsFile, name: &str, length: usize) -> Result<Vec<f32>> {
    let path = || file.path().to_path_buf();
    let shape =
        file.shape(name).ok_or_else(|| Error::TensorMissing { path: path(), tensor: name.to_owned() })?;
    if shape != [length] {
        let (tensor, found, expected) = (name.to_owned(), shape.to_vec(), format!("[{length}]"));
        return Err(AdapterError::TensorShape { path: path(), tensor, found, expected }.into());
    }
    finite(file, name)
}

impl Matrix {
    fn transposed(&self) -> Self {
        let values =
            (0..self.columns).flat_map(|column| self.values.iter().skip(column).step_by(self.columns));
        Self { rows: self.columns, columns: self.rows, values: values.copied().collect() }
    }
}

/// The values of a tensor, none of which may be infinite or not a number.
fn finite(file: &SafetensorsFile, name: &str) -> Result<Vec<f32>> {
    let values = file.tensor_f32(name)?;
    if values.iter().any(|value| !value.is_finite()) {
        let (path, tensor) = (file.path().to_path_buf(), name.to_owned());
        return Err(AdapterError::NotFinite { path, tensor }.into());
    }
    Ok(values)
}

fn read_matrix(file: &SafetensorsFile, name: &str) -> Result<Matrix> {
    let path = || file.path().to_path_buf();
    let shape =
        file.shape(name).ok_or_else(|| Error::TensorMissing { path: path(), tensor: name.to_owned() })?;
    let &[rows, columns] = shape else {
        let (tensor, found) = (name.to_owned(), shape.to_vec());
        return Err(AdapterError::TensorShape {
            path: path(),
            tensor,
            found,
            expected: "two dimensions".to_owned(),
        }
        .into());
    };
    Ok(Matrix { rows, columns, values: finite(file, name)? })
}

/// Writes an adapter of linear layers, without magnitudes, into an existing folder, each file atomically, the configuration last. `metadata` becomes the
/// text metadata of the safetensors file; the entry `format`, which PEFT demands, is added.
///
/// # Errors
/// [`Error::Adapter`] when a factor does not have the rank that the configuration says, [`Error::TensorLength`] when
/// values and shape disagree, [`Error::Io`].
pub fn write_adapter(
    folder: &Path,
    config: &AdapterConfig,
    tensors: &[AdapterTensor],
    mut metadata: BTreeMap<String, String>,
) -> Result<()> {
    let path = folder.join(WEIGHTS);
    config.validate(&folder.join(CONFIG))?;
    for tensor in tensors {
        check_rank(&path, config, tensor)?;
    }
    metadata.insert("format".to_owned(), "pt".to_owned());
    let named = tensors.iter().flat_map(|AdapterTensor { module, a, b, .. }| {
        [(format!("{PREFIX}{module}{SUFFIX_A}"), a), (format!("{PREFIX}{module}{SUFFIX_B}"), b)]
    });
    let rows =
        named.map(|(name, matrix)| (name, vec![matrix.rows, matrix.columns], matrix.values.as_slice()));
    write_safetensors(&path, rows, &metadata)?;
    atomic_write(&folder.join(CONFIG), |file| {
        serde_json::to_writer_pretty(&mut *file, config)?;
        file.write_all(b"\n")
    })
}

fn check_rank(path: &Path, config: &AdapterConfig, tensor: &AdapterTensor) -> Result<()> {
    let rank = config.rank(&tensor.module);
    if tensor.a.rows == rank && tensor.b.columns == rank {
        return Ok(());
    }
    let (suffix, matrix) = if tensor.a.rows == rank { (SUFFIX_B, &tensor.b) } else { (SUFFIX_A, &tensor.a) };
    Err(AdapterError::TensorShape {
        path: path.to_path_buf(),
        tensor: format!("{PREFIX}{}{suffix}", tensor.module),
        found: vec![matrix.rows, matrix.columns],
        expected: format!("rank {rank}, as the configuration says"),
    }
    .into())
}

#[cfg(test)]
mod tests;
