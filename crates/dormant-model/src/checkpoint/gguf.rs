//! GGUF, the file format of llama.cpp: metadata, tokenizer and quantised weights in one file.

mod error;
mod header;
mod reader;
mod value;
pub(super) mod writer;

use std::path::Path;

pub use error::GgufError;
pub use value::{Array, FromValue, Value};

use super::file::TensorFile;
use crate::error::{Error, Result};
use header::Header;

/// An open GGUF file whose header has been checked against the length of the file.
#[derive(Debug)]
pub struct Gguf {
    file: TensorFile,
    header: Header,
}

impl Gguf {
    /// Opens a GGUF file of version 2 or 3 and reads its header; the tensors stay on disk.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Gguf`] for a header that is damaged, lies about lengths, or names tensor types
    /// that are not supported.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let header = file
            .read_head(|input| Header::read(input, file.length()))?
            .map_err(|source| Error::Gguf { path: path.to_path_buf(), source })?;
        Ok(Self { file, header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The metadata value of `key`, if there is one: `gguf.get::<&str>("tokenizer.chat_template")`.
    ///
    /// # Errors
    /// [`GgufError::KeyType`] for a value that does not convert to `T`.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        header::lookup(&self.header.metadata, key).map_err(|source| self.error(source))
    }

    /// The metadata value of `key`, which must be there.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], or as [`Gguf::get`].
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| self.error(GgufError::MissingKey { key: key.to_owned() }))
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.header.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Names of the tensors as in the file, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, slowest dimension first as in `torch`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The values of a tensor in the order of the file.
    ///
    /// # Errors
    /// [`Error::TensorMissing`], or [`Error::Io`].
    pub fn tensor_f32(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.header.tensors.get(name).ok_or_else(|| Error::TensorMissing {
            path: self.path().to_path_buf(),
            tensor: name.to_owned(),
        })?;
        self.file.decode(tensor.encoding, tensor.offset, tensor.values)
    }

    fn error(&self, source: GgufError) -> Error {
        Error::Gguf { path: self.path().to_path_buf(), source }
    }
}
