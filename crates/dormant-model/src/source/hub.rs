//! Models on the Hugging Face hub, through the `hf-hub` crate and its cache (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::api::{Progress, RepoInfo};
use hf_hub::{Cache, Repo, RepoType};

use super::digest::{file_digest, hex_equals};
use super::{Origin, Resolved, SourceError, holds};
use crate::error::{Error, Result};

/// Files besides the weights that make up a model.
const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// A repository on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    /// `org/name`.
    pub(super) id: String,
    /// A branch, tag or commit.
    pub(super) revision: String,
}

impl Repository {
    /// Reads `hf:org/name[@revision]`; `None` for a name of another form.
    pub(super) fn parse(name: &str) -> Result<Option<Self>> {
        let Some(repository) = name.strip_prefix("hf:") else { return Ok(None) };
        let (id, revision) = repository.split_once('@').unwrap_or((repository, "main"));
        let is_part = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            part.chars().all(plain) && part.contains(|c: char| c != '.')
        };
        let is_id = id.split('/').count() == 2 && id.split('/').all(is_part);
        if is_id && revision.split('/').all(is_part) {
            return Ok(Some(Self { id: id.to_owned(), revision: revision.to_owned() }));
        }
        Err(SourceError::RepositoryName { name: name.to_owned() }.into())
    }

    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.clone(), RepoType::Model, revision.to_owned())
    }
}

/// The hub and its cache on this machine.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    pub(super) cache: PathBuf,
    pub(super) endpoint: Option<String>,
    pub(super) token: Option<String>,
    /// How long the hub may take to describe a repository.
    pub(super) answer_limit: Duration,
    /// How long a download may stand still.
    pub(super) stall_limit: Duration,
}

enum Event {
    Listed,
    Started { file: String, bytes: usize },
    Received { bytes: usize },
    Done(std::result::Result<(PathBuf, String), SourceError>),
}

impl Hub {
    pub(super) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            cache: Cache::from_env().path().clone(),
            endpoint: variable("HF_ENDPOINT"),
            token: variable("HF_TOKEN"),
            answer_limit: Duration::from_secs(4),
            stall_limit: Duration::from_secs(30),
        }
    }

    /// Downloads a model, or takes it from the hub's cache when the hub cannot be asked.
    pub(super) fn resolve(
        &self,
        name: &str,
        repository: &Repository,
        offline: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Resolved> {
        let found = if offline {
            self.cached(repository).ok_or_else(|| SourceError::Offline { name: name.to_owned() })
        } else {
            self.download(repository, progress).or_else(|error| self.cached(repository).ok_or(error))
        };
        let (path, revision) = found?;
        let origin = Origin::Hub { repo: repository.id.clone(), revision };
        Ok(Resolved { path, origin, sha256: None, name: name.to_owned() })
    }

    /// The files of an earlier download, and their commit.
    pub(super) fn cached(&self, repository: &Repository) -> Option<(PathBuf, String)> {
        let cache = Cache::new(self.cache.clone()).repo(repository.at(&repository.revision));
        let snapshot = cache.get("config.json")?.parent()?.to_path_buf();
        let revision = snapshot.file_name()?.to_str()?.to_owned();
        let complete = holds(&snapshot, "tokenizer.json")
            && (holds(&snapshot, "model.safetensors") || holds(&snapshot, "model.safetensors.index.json"));
        complete.then_some((snapshot, revision))
    }

    /// Runs the download in a thread of its own, because the crate has no time limits: a hub that is silent is left.
    fn download(
        &self,
        repository: &Repository,
        progress: &mut dyn FnMut(&str),
    ) -> std::result::Result<(PathBuf, String), SourceError> {
        let (sender, events) = mpsc::channel();
        let (hub, wanted) = (self.clone(), repository.clone());
        thread::spawn(move || {
            let result = hub.download_blocking(&wanted, &sender);
            let _ = sender.send(Event::Done(result));
        });
        let mut limit = self.answer_limit;
        let mut meter = Meter::default();
        loop {
            match events.recv_timeout(limit) {
                Ok(Event::Done(result)) => return result,
                Ok(Event::Listed) => {
                    progress(&format!("downloading {} from the Hugging Face hub", repository.id));
                }
                Ok(Event::Started { file, bytes }) => {
                    meter = Meter { file, total: bytes, ..Meter::default() }
                }
                Ok(Event::Received { bytes }) => meter.advance(bytes, progress),
                Err(RecvTimeoutError::Timeout) => return Err(SourceError::HubSilent { limit }),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(SourceError::HubCrashed { repo: repository.id.clone() });
                }
            }
            limit = self.stall_limit;
        }
    }

    fn download_blocking(
        &self,
        repository: &Repository,
        events: &Sender<Event>,
    ) -> std::result::Result<(PathBuf, String), SourceError> {
        let failed = |error: ApiError| SourceError::Hub(Box::new(error));
        let cache = Cache::new(self.cache.clone());
        let token = self.token.clone().or_else(|| cache.token());
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_token(token).with_progress(false);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(failed)?;
        let info = api.repo(repository.at(&repository.revision)).info().map_err(failed)?;
        let _ = events.send(Event::Listed);
        // All files from one commit, even if somebody pushes another in between.
        let remote = api.repo(repository.at(&info.sha));
        let local = cache.repo(repository.at(&info.sha));
        let mut model = None;
        for file in wanted(&repository.id, &info)? {
            let path = match local.get(&file) {
                Some(path) => path,
                None => fetch(&remote, &file, events)?,
            };
            model = if is_gguf(&file) { Some(path) } else { path.parent().map(Path::to_path_buf) };
        }
        let _ = cache.repo(repository.at(&repository.revision)).create_ref(&info.sha);
        model
            .map(|path| (path, info.sha))
            .ok_or_else(|| SourceError::HubFiles { repo: repository.id.clone() })
    }
}

fn fetch(remote: &ApiRepo, file: &str, events: &Sender<Event>) -> std::result::Result<PathBuf, SourceError> {
    let path = remote
        .download_with_progress(file, Reporter(events.clone()))
        .map_err(|error| SourceError::Hub(Box::new(error)))?;
    match verify_file(&path) {
        Ok(()) => Ok(path),
        Err(error) => {
            // A corrupt blob must not be found again.
            let _ = fs::canonicalize(&path).and_then(fs::remove_file);
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// The files of a repository that make up a model.
fn wanted(repo: &str, info: &RepoInfo) -> std::result::Result<Vec<String>, SourceError> {
    let top = || {
        info.siblings.iter().map(|file| file.rfilename.as_str()).filter(|name| !name.contains(['/', '\\']))
    };
    let is_weights = |name: &&str| Path::new(name).extension().is_some_and(|end| end == "safetensors");
    let named = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    if top().any(|name| name == "config.json") && top().any(|name| is_weights(&name)) {
        return Ok(named(top().filter(|name| COMPANIONS.contains(name) || is_weights(name)).collect()));
    }
    let gguf: Vec<&str> = top().filter(|name| is_gguf(name)).collect();
    if gguf.len() == 1 { Ok(named(gguf)) } else { Err(SourceError::HubFiles { repo: repo.to_owned() }) }
}

fn is_gguf(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "gguf")
}

/// Verifies every file of a snapshot, or a single file of one.
pub(super) fn verify_snapshot(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(verify_file(path)?);
    }
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        verify_file(&entry.map_err(Error::io("list", path))?.path())?;
    }
    Ok(())
}

/// The hub stores large files under their SHA-256; small ones, under another digest, came over TLS.
fn verify_file(path: &Path) -> std::result::Result<(), SourceError> {
    let Ok(blob) = fs::canonicalize(path) else { return Ok(()) };
    let expected = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if expected.len() != 64 || !expected.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = file_digest(&blob).unwrap_or_default();
    if hex_equals(&found, &expected) {
        Ok(())
    } else {
        Err(SourceError::Corrupt { path: blob, expected, found })
    }
}

/// Passes a download's progress on to the thread that waits for it.
struct Reporter(Sender<Event>);

impl Progress for Reporter {
    fn init(&mut self, size: usize, filename: &str) {
        let _ = self.0.send(Event::Started { file: filename.to_owned(), bytes: size });
    }

    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Received { bytes: size });
    }

    fn finish(&mut self) {}
}

/// Turns bytes into a line at every tenth of a large file.
#[derive(Default)]
struct Meter {
    file: String,
    total: usize,
    received: usize,
    tenths: usize,
}

impl Meter {
    fn advance(&mut self, bytes: usize, progress: &mut dyn FnMut(&str)) {
        self.received += bytes;
        let tenths = (self.received * 10).checked_div(self.total).unwrap_or(10);
        if tenths > self.tenths && self.total > 1 << 20 {
            progress(&format!("{}: {}0% of {} MB", self.file, tenths, self.total / 1_000_000));
        }
        self.tenths = tenths;
    }
}

#[cfg(test)]
mod tests;
