//! Models that the user names by a path.

use std::fs;
use std::path::{Path, PathBuf};

use super::{SourceError, alias, holds};
use crate::error::{Error, Result};

/// The folder of a stage directory that holds its weights or adapter.
const STAGE_MODEL: &str = "model";

/// The model that a path means: a file, a folder with a model, or a stage directory.
pub(super) fn find(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    if path.is_dir() {
        return match in_folder(path)? {
            Some(model) => Ok(model),
            None => in_folder(&path.join(STAGE_MODEL))?
                .ok_or_else(|| SourceError::NoModel { path: path.to_path_buf() }.into()),
        };
    }
    if name.contains(['/', '\\'])
        || name.starts_with('.')
        || path.extension().is_some_and(|end| end == "gguf")
    {
        return Err(SourceError::Missing { path: path.to_path_buf() }.into());
    }
    let known = alias::ALIASES.iter().map(|alias| alias.name).collect();
    Err(SourceError::Unknown { name: name.to_owned(), similar: alias::similar(name), known }.into())
}

/// The folder itself, if it holds a model or an adapter, or the only GGUF file in it.
pub(super) fn in_folder(folder: &Path) -> Result<Option<PathBuf>> {
    if holds(folder, "config.json") || holds(folder, "adapter_config.json") {
        return Ok(Some(folder.to_path_buf()));
    }
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|end| end == "gguf") && path.is_file() {
            files.push(path);
        }
    }
    Ok(if files.len() == 1 { files.pop() } else { None })
}
