//! Reading tensors out of the middle of a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::encoding::Encoding;
use crate::error::{Error, Result};

/// Bytes decoded at once, so that the encoded form of a large tensor is never held whole.
const CHUNK_BYTES: usize = 1 << 20;

/// An open file whose tensors are read on demand.
#[derive(Debug)]
pub(super) struct TensorFile {
    path: PathBuf,
    /// The lock keeps a seek and the read after it together.
    file: Mutex<File>,
    length: u64,
}

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self { path: path.to_path_buf(), file: Mutex::new(file), length })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when the file was opened.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Gives `read` the file, positioned at its first byte.
    pub(super) fn read_head<T>(&self, read: impl FnOnce(&mut File) -> T) -> Result<T> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.rewind().map_err(Error::io("read", &self.path))?;
        Ok(read(&mut file))
    }

    /// Decodes `values` numbers from byte `offset` on. The caller has checked that they lie inside the file.
    pub(super) fn decode(&self, encoding: Encoding, offset: u64, values: usize) -> Result<Vec<f32>> {
        let blocks_at_once = CHUNK_BYTES / encoding.block_bytes();
        let mut decoded = vec![0.0; values];
        let parts = decoded.par_chunks_mut(blocks_at_once * encoding.block_values()).enumerate();
        parts.try_for_each_init(Vec::new, |bytes, (index, part)| -> Result<()> {
            bytes.resize(part.len() / encoding.block_values() * encoding.block_bytes(), 0);
            let start = offset + (index * blocks_at_once * encoding.block_bytes()) as u64;
            self.read(start, bytes).map_err(Error::io("read", &self.path))?;
            encoding.decode(bytes, part);
            Ok(())
        })?;
        Ok(decoded)
    }

    fn read(&self, start: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(bytes)
    }
}
