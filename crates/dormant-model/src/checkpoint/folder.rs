//! A Hugging Face model folder: `config.json` and one or several safetensors files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::safetensors::SafetensorsFile;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Adapter weights may lie beside the model's.
const ADAPTER: &str = "adapter_model.safetensors";

/// An open model folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) config: ModelConfig,
    shards: Vec<SafetensorsFile>,
    /// Position in `shards` of each tensor.
    placement: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let config = ModelConfig::from_json(&path.join(CONFIG))?;
        let index = path.join(INDEX);
        let weights = path.join(WEIGHTS);
        let (shards, placement) = if !weights.exists() && index.exists() {
            open_sharded(path, &index)?
        } else {
            let shard = SafetensorsFile::open(&if weights.exists() { weights } else { only_weights(path)? })?;
            let placement = shard.tensor_names().into_iter().map(|name| (name, 0)).collect();
            (vec![shard], placement)
        };
        Ok(Self { path: path.to_path_buf(), config, shards, placement })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.placement.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shards[*self.placement.get(name)?].shape(name)
    }

    pub(super) fn tensor_f32(&self, name: &str) -> Result<Vec<f32>> {
        let missing = || Error::TensorMissing { path: self.path.clone(), tensor: name.to_owned() };
        self.shards[*self.placement.get(name).ok_or_else(missing)?].tensor_f32(name)
    }

    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        self.shards.iter().flat_map(SafetensorsFile::metadata).collect()
    }
}

/// The safetensors file of a folder in which it does not have the usual name.
fn only_weights(folder: &Path) -> Result<PathBuf> {
    // `transformers` knows the pickle by its name, and not the file with another one.
    refuse_pickles(folder)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let is_adapter = path.file_name().is_some_and(|name| name == ADAPTER);
        if path.extension().is_some_and(|extension| extension == "safetensors") && !is_adapter {
            found.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(other) => Err(Error::NoWeights { path: folder.to_path_buf(), found: other.len() }),
    }
}

/// Names the pickle with which a folder comes that has no safetensors of the usual name, if it does.
///
/// # Errors
/// [`Error::Pickled`].
pub(crate) fn refuse_pickles(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_pickle = |name: &String| {
        let holds_weights = name.contains("model") || name.starts_with("consolidated");
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        holds_weights && extension.is_some_and(|extension| PICKLES.contains(&extension))
    };
    match names.filter(is_pickle).min() {
        Some(name) => Err(Error::Pickled { path: folder.join(name) }),
        None => Ok(()),
    }
}

/// Extensions of PyTorch's own files.
const PICKLES: [&str; 5] = ["bin", "ckpt", "pkl", "pt", "pth"];

fn open_sharded(folder: &Path, index: &Path) -> Result<(Vec<SafetensorsFile>, BTreeMap<String, usize>)> {
    let text = fs::read_to_string(index).map_err(Error::io("read", index))?;
    let Index { weight_map } = serde_json::from_str(&text).map_err(Error::json(index))?;
    let names: Vec<&String> = weight_map.values().collect::<BTreeSet<_>>().into_iter().collect();
    let shards = names.iter().map(|shard| open_shard(folder, index, shard)).collect::<Result<Vec<_>>>()?;
    let mut placement = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        let position = names.binary_search(&shard).expect("`names` holds all values of the map, sorted");
        if shards[position].shape(tensor).is_none() {
            let (path, tensor, shard) = (index.to_path_buf(), tensor.clone(), shard.clone());
            return Err(Error::ShardLacksTensor { path, tensor, shard });
        }
        placement.insert(tensor.clone(), position);
    }
    for (position, shard) in names.into_iter().enumerate() {
        let elsewhere = |tensor: &String| placement.get(tensor) != Some(&position);
        if let Some(tensor) = shards[position].tensor_names().into_iter().find(elsewhere) {
            let (path, shard) = (index.to_path_buf(), shard.clone());
            return Err(Error::ShardUnlistedTensor { path, tensor, shard });
        }
    }
    Ok((shards, placement))
}

fn open_shard(folder: &Path, index: &Path, shard: &str) -> Result<SafetensorsFile> {
    let mut components = Path::new(shard).components();
    let (first, rest) = (components.next(), components.next());
    // The first component is the whole name: no trailing separator, no other spelling.
    if !matches!((first, rest), (Some(Component::Normal(name)), None) if name == shard) {
        return Err(Error::ShardOutsideFolder { path: index.to_path_buf(), shard: shard.to_owned() });
    }
    let path = folder.join(shard);
    if !path.exists() {
        return Err(Error::ShardMissing { path: index.to_path_buf(), shard: shard.to_owned() });
    }
    SafetensorsFile::open(&path)
}
