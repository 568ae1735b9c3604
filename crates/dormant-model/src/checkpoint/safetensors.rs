//! One safetensors file: an 8-byte length, a JSON header, and raw little-endian tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use super::encoding::Encoding;
use super::file::TensorFile;
use crate::atomic::atomic_write;
use crate::error::{Error, Result};

/// Bytes of the length at the beginning.
const LENGTH_BYTES: u64 = 8;
/// Longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// An open safetensors file whose header has been checked against the length of the file.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: TensorFile,
    header: Metadata,
    data_start: u64,
}

impl SafetensorsFile {
    /// Opens a file and reads its header; the tensors stay on disk.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::SafetensorsHeaderLength`] and [`Error::SafetensorsHeader`] for a damaged header
    /// (the `safetensors` crate checks that tensors are gapless and as long as their shapes say), or
    /// [`Error::SafetensorsLength`] for a file of another length.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let limit = file.length().saturating_sub(LENGTH_BYTES).min(MAX_HEADER_BYTES);
        let read = |input: &mut File| read_header(input, limit);
        let json = file
            .read_head(read)?
            .map_err(Error::io("read", path))?
            .map_err(|length| Error::SafetensorsHeaderLength { path: path.to_path_buf(), length, limit })?;
        let header: Metadata = serde_json::from_slice(&json)
            .map_err(|source| Error::SafetensorsHeader { path: path.to_path_buf(), source })?;
        let data_start = LENGTH_BYTES + json.len() as u64;
        let expected = data_start.saturating_add(header.data_len() as u64);
        if expected != file.length() {
            let (path, found) = (path.to_path_buf(), file.length());
            return Err(Error::SafetensorsLength { path, expected, found });
        }
        Ok(Self { file, header, data_start })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Names of the tensors, in the order of the file.
    pub fn tensor_names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// The values of a tensor of type F32, F16 or BF16.
    ///
    /// # Errors
    /// [`Error::TensorMissing`], [`Error::TensorType`], or [`Error::Io`].
    pub fn tensor_f32(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.header.info(name).ok_or_else(|| Error::TensorMissing {
            path: self.path().to_path_buf(),
            tensor: name.to_owned(),
        })?;
        let encoding = self.encoding(name, info)?;
        let (start, end) = info.data_offsets;
        let values = (end - start) / encoding.block_bytes();
        self.file.decode(encoding, self.data_start + start as u64, values)
    }

    /// The free-form text metadata, such as `format`.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn encoding(&self, name: &str, info: &TensorInfo) -> Result<Encoding> {
        match info.dtype {
            Dtype::F32 => Ok(Encoding::F32),
            Dtype::F16 => Ok(Encoding::F16),
            Dtype::BF16 => Ok(Encoding::Bf16),
            other => Err(Error::TensorType {
                path: self.path().to_path_buf(),
                tensor: name.to_owned(),
                found: format!("{other:?}"),
                expected: "F32, F16 or BF16",
            }),
        }
    }
}

/// The JSON text, or its announced length when that exceeds `limit`.
fn read_header(input: &mut File, limit: u64) -> io::Result<std::result::Result<Vec<u8>, u64>> {
    let mut length = [0; LENGTH_BYTES as usize];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > limit {
        return Ok(Err(length));
    }
    let mut json = vec![0; length as usize];
    input.read_exact(&mut json)?;
    Ok(Ok(json))
}

/// Writes tensors as f32, atomically. Equal input gives equal bytes: tensors and metadata are sorted by name.
///
/// `tensors` gives name, shape and row-major values; values may be owned or borrowed.
///
/// # Errors
/// [`Error::TensorLength`] when values and shape disagree, [`Error::TensorDuplicate`], or [`Error::Io`].
pub fn write_safetensors<Values: AsRef<[f32]>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Values)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let tensors = sorted(path, tensors)?;
    let header = header_json(&tensors, metadata);
    atomic_write(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for (_, values) in tensors.values() {
            for value in values.as_ref() {
                file.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    })
}

fn sorted<Values: AsRef<[f32]>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Values)>,
) -> Result<BTreeMap<String, (Vec<usize>, Values)>> {
    let mut sorted = BTreeMap::new();
    for (tensor, shape, values) in tensors {
        let length = values.as_ref().len();
        if shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)) != Some(length) {
            return Err(Error::TensorLength { tensor, shape, values: length });
        }
        if sorted.insert(tensor.clone(), (shape, values)).is_some() {
            return Err(Error::TensorDuplicate { path: path.to_path_buf(), tensor });
        }
    }
    Ok(sorted)
}

/// The crate's own writer keeps metadata in a hash map, whose order changes from run to run.
fn header_json<Values: AsRef<[f32]>>(
    tensors: &BTreeMap<String, (Vec<usize>, Values)>,
    metadata: &BTreeMap<String, String>,
) -> String {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for (name, (shape, values)) in tensors {
        let end = start + size_of_val(values.as_ref());
        let info = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), info);
        start = end;
    }
    let mut text = Value::Object(header).to_string();
    // Readers that map the file expect aligned values.
    let padding = text.len().next_multiple_of(LENGTH_BYTES as usize) - text.len();
    text.extend(std::iter::repeat_n(' ', padding));
    text
}
