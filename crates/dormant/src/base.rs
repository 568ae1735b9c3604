//! The base model of a run.

use std::path::PathBuf;

use dormant_model::error::Error as ModelError;
use dormant_model::source::{self, Options, Origin, Resolved, SourceError};

use crate::error::Result;
use crate::manifest::Base;
use crate::ui::Ui;

/// A base model on this machine.
#[derive(Debug, Clone)]
pub struct BaseModel {
    /// Its name and where it came from.
    pub base: Base,
    /// A `.gguf` file, or a folder.
    pub path: PathBuf,
    /// SHA-256 of its files, in hexadecimal.
    pub digest: String,
}

/// Finds the model that `name` names, and downloads it unless `offline`.
///
/// # Errors
/// When it is not on this machine and cannot be had, or is damaged.
pub fn resolve(name: &str, offline: bool, ui: &Ui) -> Result<BaseModel> {
    resolved(name, source::resolve(name, &options(offline), &mut |line| ui.note(line))?, ui)
}

fn resolved(name: &str, found: Resolved, ui: &Ui) -> Result<BaseModel> {
    ui.detail(format!("{name}: {} ({})", found.path.display(), origin(&found)));
    let base = Base { name: name.to_owned(), source: origin(&found) };
    let digest = match found.sha256 {
        Some(digest) => digest,
        None => source::digest(&found.path)?,
    };
    Ok(BaseModel { base, path: found.path, digest })
}

/// The model that `name` names, if it is on this machine; none if it would have to be fetched.
///
/// # Errors
/// When the name means nothing, or what it means is damaged.
pub fn at_hand(name: &str, ui: &Ui) -> Result<Option<BaseModel>> {
    match source::resolve(name, &options(true), &mut |line| ui.note(line)) {
        Err(ModelError::Source(SourceError::Offline { .. })) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(found) => resolved(name, found, ui).map(Some),
    }
}

/// Where models may come from.
pub fn options(offline: bool) -> Options {
    Options { offline, cache_dir: None }
}

/// Where a model came from, in words.
pub fn origin(found: &Resolved) -> String {
    match &found.origin {
        Origin::Cache => "cache".to_owned(),
        Origin::Hub { repo, revision } => format!("hub {repo}@{revision}"),
        Origin::Wheel { requirement, sha256 } => format!("wheel {requirement} sha256:{sha256}"),
        Origin::Path => "path".to_owned(),
    }
}
