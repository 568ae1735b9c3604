//! Digests of what a stage wrote, so that two runs can be compared without their weights.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::plan::hexadecimal;

/// One artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Path in the stage's directory.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The files under `root`, sorted by path, without hidden ones and the top-level entries in `except`.
pub(super) fn list(root: &Path, except: &[&str]) -> Result<Vec<Output>> {
    let mut outputs = Vec::new();
    visit(root, "", except, &mut outputs).or_failure(|| format!("cannot read `{}`", root.display()))?;
    outputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(outputs)
}

fn visit(folder: &Path, prefix: &str, except: &[&str], outputs: &mut Vec<Output>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || except.contains(&name.as_str()) {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            visit(&entry.path(), &format!("{path}/"), &[], outputs)?;
        } else {
            let (bytes, sha256) = digest_file(&entry.path())?;
            outputs.push(Output { path, bytes, sha256 });
        }
    }
    Ok(())
}

/// Size and SHA-256 of a file.
pub(crate) fn digest_file(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let bytes = io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok((bytes, hexadecimal(&hasher.finalize())))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
