//! The directory of one stage: artifacts that survive `kill -9` at any moment.
//!
//! A stage is done when `DONE` exists, which is written last. Until then `checkpoint/` may hold what the stage needs
//! to go on from one of its steps; lines that were written to `metrics.jsonl` or `samples.jsonl` after that step are
//! cut off, so that the finished files are the same as without the interruption.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Context, Result};
use crate::manifest::Manifest;

mod json_lines;
mod outputs;

pub use json_lines::JsonLines;
pub use outputs::Output;
pub(crate) use outputs::digest_file;

const DONE: &str = "DONE";
const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model";
const CHECKPOINT: &str = "checkpoint";
const SECONDS: &str = "seconds";
/// What is no artifact.
const NO_OUTPUTS: &[&str] = &[CHECKPOINT, MANIFEST, DONE];
const UNFINISHED: &str = ".unfinished";

/// The directory of one stage.
#[derive(Debug)]
pub struct StageDir {
    path: PathBuf,
    opened: Instant,
    /// Time that earlier processes spent until the checkpoint found here.
    earlier: OnceLock<Duration>,
}

/// A state that a stage can go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The step it was saved after.
    pub step: u64,
    /// Folder with the files that the stage wrote.
    pub path: PathBuf,
}

impl StageDir {
    /// The directory at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, opened: Instant::now(), earlier: OnceLock::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the stage's model is: a PEFT adapter or all weights.
    pub fn model(&self) -> PathBuf {
        self.path.join(MODEL)
    }

    /// Whether the stage is finished.
    pub fn is_done(&self) -> bool {
        self.path.join(DONE).exists()
    }

    /// The hash of the finished stage; `None` if it is not finished.
    pub fn finished_hash(&self) -> Option<String> {
        Some(fs::read_to_string(self.path.join(DONE)).ok()?.trim().to_owned())
    }

    /// Whether the stage has been begun but not finished.
    pub fn is_started(&self) -> bool {
        self.path.exists() && !self.is_done()
    }

    /// Makes the directory and records the configuration of the stage as `config.toml`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, config: &impl Serialize) -> Result<()> {
        fs::create_dir_all(&self.path).or_failure(|| format!("cannot create `{}`", self.path.display()))?;
        let config =
            toml::to_string(config).or_failure(|| "cannot write the stage's configuration as TOML")?;
        self.write_atomic("config.toml", config.as_bytes())
    }

    /// Opens `metrics.jsonl` for appending after its first `keep` lines: those of the checkpoint, 0 for a new start.
    ///
    /// # Errors
    /// When the file cannot be written or has fewer lines.
    pub fn metrics(&self, keep: u64) -> Result<JsonLines> {
        JsonLines::open(&self.path.join("metrics.jsonl"), keep)
    }

    /// Opens `samples.jsonl` (every prompt, reply and score) in the same way.
    ///
    /// # Errors
    /// When the file cannot be written or has fewer lines.
    pub fn samples(&self, keep: u64) -> Result<JsonLines> {
        JsonLines::open(&self.path.join("samples.jsonl"), keep)
    }

    /// Opens another file of lines in the same way, such as `rows.jsonl`.
    ///
    /// # Errors
    /// When the file cannot be written or has fewer lines.
    pub fn lines(&self, name: &str, keep: u64) -> Result<JsonLines> {
        JsonLines::open(&self.path.join(name), keep)
    }

    /// Writes a file as a whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_atomic(&self.path.join(name), bytes)
    }

    /// Writes a value as indented JSON, as a whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut json =
            serde_json::to_vec_pretty(value).or_failure(|| format!("cannot write `{name}` as JSON"))?;
        json.push(b'\n');
        self.write_atomic(name, &json)
    }

    /// Writes `model/` as a whole or not at all: `write` fills the folder it is given.
    ///
    /// # Errors
    /// When `write` fails or the folder cannot be put in place.
    pub fn write_model(&self, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.write_folder(MODEL, write)
    }

    /// Writes a folder as a whole or not at all: `write` fills the folder it is given.
    ///
    /// # Errors
    /// When `write` fails or the folder cannot be put in place.
    pub fn write_folder(&self, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        replace_folder(&self.path, name, write)
    }

    /// Saves a state to go on from, in place of the one before: `write` fills the folder it is given. Sync the
    /// [`JsonLines`] first, and store their number of lines in the state.
    ///
    /// # Errors
    /// When `write` fails or the folder cannot be put in place.
    pub fn save_checkpoint(&self, step: u64, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let seconds = self.elapsed().as_secs_f64();
        let folder = self.path.join(CHECKPOINT);
        create_dir(&folder)?;
        let name = format!("{step:08}");
        replace_folder(&folder, &name, |path| {
            write_atomic(&path.join(SECONDS), seconds.to_string().as_bytes())?;
            write(path)
        })?;
        for other in steps(&folder)?.into_iter().filter(|other| *other != step) {
            remove_dir(&folder.join(format!("{other:08}")))?;
        }
        Ok(())
    }

    /// The latest saved state, if any.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let folder = self.path.join(CHECKPOINT);
        let latest = steps(&folder)?.into_iter().max();
        Ok(latest.map(|step| Checkpoint { step, path: folder.join(format!("{step:08}")) }))
    }

    /// Time spent on this stage: in this process since the directory was opened, and in earlier ones before their
    /// latest checkpoint.
    pub fn elapsed(&self) -> Duration {
        *self.earlier.get_or_init(|| self.earlier_seconds().unwrap_or_default()) + self.opened.elapsed()
    }

    fn earlier_seconds(&self) -> Option<Duration> {
        let checkpoint = self.checkpoint().ok()??;
        let seconds = fs::read_to_string(checkpoint.path.join(SECONDS)).ok()?;
        Duration::try_from_secs_f64(seconds.parse().ok()?).ok()
    }

    /// The manifest of the finished stage.
    ///
    /// # Errors
    /// Invalid input if it is missing or damaged.
    pub fn manifest(&self) -> Result<Manifest> {
        let path = self.path.join(MANIFEST);
        let text = fs::read(&path).or_input(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_slice(&text)
            .or_input(|| format!("`{}` is damaged or was written by another version", path.display()))
    }

    /// The files of the finished stage, but for its model.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn records(&self) -> Result<Vec<PathBuf>> {
        let outputs = self.manifest()?.outputs.into_iter().map(|output| output.path);
        let records = outputs.filter(|path| !Path::new(path).starts_with(MODEL));
        Ok(records.chain([MANIFEST, DONE].map(str::to_owned)).map(|path| self.path.join(path)).collect())
    }

    /// Becomes a copy of a finished stage that did the same work, as a whole or not at all. False, and nothing changed,
    /// if the other's files are not those of its manifest any more.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn copy_of(&self, other: &Self, describe: impl FnOnce(Manifest) -> Manifest) -> Result<bool> {
        let manifest = other.manifest()?;
        if outputs::list(&other.path, NO_OUTPUTS)? != manifest.outputs {
            return Ok(false);
        }
        let (parent, name) = (self.path.parent().zip(self.path.file_name())).expect("a stage has a name");
        replace_folder(parent, &name.to_string_lossy(), |new| {
            for Output { path, .. } in &manifest.outputs {
                copy(&other.path.join(path), &new.join(path))?;
            }
            Self::new(new.to_owned()).finish(describe(manifest))
        })?;
        Ok(true)
    }

    /// Writes the manifest with the digests of all artifacts, then `DONE`, then removes the checkpoint.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn finish(&self, mut manifest: Manifest) -> Result<()> {
        manifest.outputs = outputs::list(&self.path, NO_OUTPUTS)?;
        self.write_json(MANIFEST, &manifest)?;
        self.write_atomic(DONE, format!("{}\n", manifest.hash).as_bytes())?;
        self.tidy()
    }

    /// Removes the checkpoint of a finished stage, and what kills left half-written.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn tidy(&self) -> Result<()> {
        remove_dir(&self.path.join(CHECKPOINT))?;
        remove_beginning_with(&self.path, ".").or_failure(|| format!("cannot tidy `{}`", self.path.display()))
    }
}

/// Fills a new folder and puts it in the place of `name`. Between the removal of the old one and the renaming neither
/// exists, which a rerun repairs.
fn replace_folder(parent: &Path, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let new = parent.join(UNFINISHED);
    let target = parent.join(name);
    fill(&new, write)?;
    remove_dir(&target)?;
    put(&new, &target)
}

/// Makes the folder `path`, which must not be there, as a whole or not at all: `write` fills the folder that it is given.
///
/// # Errors
/// When `write` fails or the folder cannot be put in place.
pub(crate) fn write_folder(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().ok_or_else(|| format!("`{}` is no name for a folder", path.display()));
    let name = name.or_failure(|| "cannot make a folder")?.to_string_lossy();
    make_parent(path)?;
    let new = path.with_file_name(format!("{UNFINISHED}-{name}"));
    let written = fill(&new, write).and_then(|()| put(&new, path));
    if written.is_err() {
        // What failed says more than what may go wrong in clearing up.
        remove_dir(&new).ok();
    }
    written
}

/// Makes the folder that `path` is to stand in.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_parent(path: &Path) -> Result<()> {
    let parent = folder_of(path);
    fs::create_dir_all(parent).or_failure(|| format!("cannot make `{}`", parent.display()))
}

/// The folder that `path` stands in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the folder `new` anew, and fills it.
fn fill(new: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    remove_dir(new)?;
    create_dir(new)?;
    write(new)?;
    sync_tree(new).or_failure(|| format!("cannot write `{}`", new.display()))
}

fn put(new: &Path, target: &Path) -> Result<()> {
    fs::rename(new, target)
        .and_then(|()| sync(folder_of(target)))
        .or_failure(|| format!("cannot put `{}` in place", target.display()))
}

/// The steps that have a whole checkpoint.
fn steps(folder: &Path) -> Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).or_failure(|| format!("cannot read `{}`", folder.display())),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Writes a file as a whole or not at all.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(dormant_model::atomic::atomic_write(path, |file| file.write_all(bytes))?)
}

/// Makes sure that the entries of a directory are on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { sync_tree(&entry.path())? } else { sync(&entry.path())? }
    }
    sync(folder)
}

/// Removes the entries whose names begin so: those of unfinished files and folders begin with a point.
pub(crate) fn remove_beginning_with(folder: &Path, start: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(start.as_bytes()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    to.parent().map_or(Ok(()), create_dir)?;
    fs::copy(from, to)
        .map(drop)
        .or_failure(|| format!("cannot copy `{}` to `{}`", from.display(), to.display()))
}

fn create_dir(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).or_failure(|| format!("cannot create `{}`", folder.display()))
}

fn remove_dir(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).or_failure(|| format!("cannot remove `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
