//! The folder that keeps downloaded models: `models/<alias>/` below `DORMANT_CACHE` or the user's cache folder.

use std::path::PathBuf;

use super::alias::Alias;
use super::digest::{file_digest, hex_equals};
use super::{Options, SourceError};
use crate::error::Result;

/// The folder for what can be made or fetched again; it need not exist.
///
/// # Errors
/// [`SourceError::NoCacheFolder`].
pub fn folder(options: &Options) -> Result<PathBuf> {
    let from_environment =
        || std::env::var_os("DORMANT_CACHE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let of_user = || Some(directories::BaseDirs::new()?.cache_dir().join("dormant"));
    let folder = options.cache_dir.clone().or_else(from_environment).or_else(of_user);
    Ok(folder.ok_or(SourceError::NoCacheFolder)?)
}

pub(super) struct Cache {
    models: PathBuf,
}

impl Cache {
    pub(super) fn new(options: &Options) -> Result<Self> {
        Ok(Self { models: folder(options)?.join("models") })
    }

    /// The folder of an alias; it need not exist.
    pub(super) fn folder(&self, alias: &Alias) -> PathBuf {
        self.models.join(alias.name)
    }

    /// The file of an alias, not verified.
    pub(super) fn find(&self, alias: &Alias) -> Option<PathBuf> {
        Some(self.folder(alias).join(alias.wheel.file)).filter(|path| path.is_file())
    }

    /// The file of an alias, verified.
    pub(super) fn load(&self, alias: &Alias) -> Result<Option<PathBuf>> {
        let Some(path) = self.find(alias) else { return Ok(None) };
        let (found, expected) = (file_digest(&path)?, alias.wheel.file_sha256);
        if hex_equals(&found, expected) {
            return Ok(Some(path));
        }
        Err(SourceError::Corrupt { path, expected: expected.to_owned(), found }.into())
    }
}
