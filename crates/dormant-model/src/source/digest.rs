//! SHA-256 digests of files and model folders.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 1 << 18;

/// Digest of a model or adapter, in hexadecimal; equal content gives equal digests wherever it lies.
///
/// A file's digest is its SHA-256. A folder's covers the names and contents of the files directly in it that make up
/// a model: `*.json`, `*.jinja`, `*.safetensors` and `*.gguf`.
///
/// # Errors
/// [`Error::Io`] when something cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    if !path.is_dir() {
        return file_digest(path);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        let file = entry.map_err(Error::io("list", path))?.path();
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if file.is_file() && ["json", "jinja", "safetensors", "gguf"].contains(&extension) {
            names.extend(file.file_name().map(ToOwned::to_owned));
        }
    }
    names.sort_unstable();
    let mut hasher = Sha256::new();
    for name in names {
        hasher.update(name.as_encoded_bytes());
        hasher.update([0]);
        hasher.update(file_digest(&path.join(&name))?);
        hasher.update([0]);
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn file_digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hasher = Sha256::new();
    copy_hashing(&mut file, &mut io::sink(), &mut hasher).map_err(Error::io("read", path))?;
    Ok(hex(&hasher.finalize()))
}

/// Copies everything, and feeds it to the hasher. Gives the number of bytes.
pub(super) fn copy_hashing(
    from: &mut impl Read,
    to: &mut impl io::Write,
    hasher: &mut Sha256,
) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        total += count as u64;
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// Whether two digests are equal, in either case of letters.
pub(super) fn hex_equals(found: &str, expected: &str) -> bool {
    found.eq_ignore_ascii_case(expected)
}
