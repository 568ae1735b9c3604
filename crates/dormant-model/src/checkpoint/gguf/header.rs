//! The header of a GGUF file: metadata, and where each tensor lies.
//!
//! Written from the specification, `docs/gguf.md` of the ggml repository.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;

use super::error::GgufError;
use super::reader::HeaderReader;
use super::value::{FromValue, Value};
use crate::checkpoint::encoding::Encoding;

const DEFAULT_ALIGNMENT: u32 = 32;
/// Length of an empty key, the number of its type, and the smallest value.
const MIN_METADATA_BYTES: u64 = 8 + 4 + 1;
/// Length of an empty name, number of dimensions, one dimension, type and offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

type Result<T> = std::result::Result<T, GgufError>;

/// What stands before the tensor data.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

/// Type, shape and place of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorInfo {
    pub(super) encoding: Encoding,
    /// Slowest dimension first, as in `torch` and unlike in the file.
    pub(super) shape: Vec<usize>,
    /// Number of values.
    pub(super) values: usize,
    /// First byte; relative to the tensor data while the header is read, then to the file.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) bytes: u64,
}

impl Header {
    /// Reads a header and checks that all tensors lie inside of a file of `file_length` bytes.
    pub(super) fn read(input: impl Read, file_length: u64) -> Result<Self> {
        let mut reader = HeaderReader::new(input, file_length);
        read_version(&mut reader)?;
        let tensor_count = reader.count("the list of tensors", MIN_TENSOR_BYTES)?;
        let metadata = read_metadata(&mut reader)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = read_tensors(&mut reader, tensor_count)?;
        let data_start = reader.position().next_multiple_of(alignment);
        let available = file_length.saturating_sub(data_start);
        for (name, tensor) in &mut tensors {
            check_place(name, tensor, alignment, available)?;
            tensor.offset += data_start;
        }
        check_overlaps(&tensors)?;
        Ok(Self { metadata, tensors })
    }
}

fn read_version(reader: &mut HeaderReader<impl Read>) -> Result<()> {
    let found = reader.bytes("the magic number")?;
    if &found != b"GGUF" {
        return Err(GgufError::Magic { found });
    }
    match reader.u32("the version")? {
        2 | 3 => Ok(()),
        found => Err(GgufError::Version { found }),
    }
}

fn read_metadata(reader: &mut HeaderReader<impl Read>) -> Result<BTreeMap<String, Value>> {
    let mut metadata = BTreeMap::new();
    for _ in 0..reader.count("the metadata", MIN_METADATA_BYTES)? {
        let key = reader.name("a metadata key")?;
        let value = reader.value(&key)?;
        match metadata.entry(key) {
            Entry::Vacant(entry) => entry.insert(value),
            Entry::Occupied(entry) => return Err(GgufError::DuplicateKey { key: entry.key().clone() }),
        };
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64> {
    let alignment = lookup(metadata, "general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() {
        Ok(alignment.into())
    } else {
        Err(GgufError::Alignment { found: alignment })
    }
}

/// The value of a metadata key, if it is there.
pub(super) fn lookup<'a, T: FromValue<'a>>(
    metadata: &'a BTreeMap<String, Value>,
    key: &str,
) -> Result<Option<T>> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    T::from_value(value).map(Some).ok_or_else(|| GgufError::KeyType {
        key: key.to_owned(),
        found: value.describe(),
        expected: T::EXPECTED,
    })
}

fn read_tensors(reader: &mut HeaderReader<impl Read>, count: usize) -> Result<BTreeMap<String, TensorInfo>> {
    let mut tensors = BTreeMap::new();
    for _ in 0..count {
        let name = reader.name("a tensor name")?;
        let tensor = read_tensor(reader, &name)?;
        match tensors.entry(name) {
            Entry::Vacant(entry) => entry.insert(tensor),
            Entry::Occupied(entry) => {
                return Err(GgufError::DuplicateTensor { tensor: entry.key().clone() });
            }
        };
    }
    Ok(tensors)
}

fn read_tensor(reader: &mut HeaderReader<impl Read>, name: &str) -> Result<TensorInfo> {
    let dimensions = read_dimensions(reader, name)?;
    let id = reader.u32(name)?;
    let encoding = Encoding::from_ggml(id)
        .ok_or_else(|| GgufError::TensorType { tensor: name.to_owned(), found: type_name(id) })?;
    let offset = reader.u64(name)?;

    let block = encoding.block_values();
    if !dimensions[0].is_multiple_of(block as u64) {
        return Err(GgufError::PartialBlock { tensor: name.to_owned(), row: dimensions[0], block });
    }
    let bytes = byte_length(&dimensions, encoding);
    let Some((values, bytes)) = bytes else {
        return Err(GgufError::TooLarge { tensor: name.to_owned(), dimensions });
    };
    // Each dimension fits, because the product does or is zero, and then nothing is read.
    let shape = dimensions.iter().rev().map(|&dimension| dimension as usize).collect();
    Ok(TensorInfo { encoding, shape, values, offset, bytes })
}

fn read_dimensions(reader: &mut HeaderReader<impl Read>, name: &str) -> Result<Vec<u64>> {
    let count = reader.u32(name)?;
    if !(1..=4).contains(&count) {
        return Err(GgufError::Dimensions { tensor: name.to_owned(), found: count });
    }
    (0..count).map(|_| reader.u64(name)).collect()
}

/// Values and bytes of a tensor, unless they are too many to count.
fn byte_length(dimensions: &[u64], encoding: Encoding) -> Option<(usize, u64)> {
    let values = dimensions.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension))?;
    let bytes = (values / encoding.block_values() as u64).checked_mul(encoding.block_bytes() as u64)?;
    Some((values.try_into().ok()?, bytes))
}

fn check_place(name: &str, tensor: &TensorInfo, alignment: u64, available: u64) -> Result<()> {
    let TensorInfo { offset, bytes, .. } = *tensor;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { tensor: name.to_owned(), offset, alignment });
    }
    match offset.checked_add(bytes) {
        Some(end) if end <= available => Ok(()),
        _ => Err(GgufError::OutsideFile { tensor: name.to_owned(), offset, bytes, available }),
    }
}

fn check_overlaps(tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
    let mut places: Vec<_> = tensors.iter().collect();
    places.sort_by_key(|(_, tensor)| (tensor.offset, tensor.bytes));
    for pair in places.windows(2) {
        let [(first, before), (second, after)] = pair else { continue };
        if before.offset + before.bytes > after.offset {
            return Err(GgufError::Overlap { first: (*first).clone(), second: (*second).clone() });
        }
    }
    Ok(())
}

/// ggml's name of a type that is not supported.
fn type_name(id: u32) -> String {
    let name = match id {
        10 => "Q2_K",
        11 => "Q3_K",
        16..=19 | 21 | 22 | 29 => "an IQ1, IQ2 or IQ3 type",
        20 => "IQ4_NL",
        23 => "IQ4_XS",
        24..=27 => "an integer type",
        28 => "F64",
        34 | 35 => "a ternary type",
        39 => "MXFP4",
        _ => return format!("number {id}, which is unknown"),
    };
    name.to_owned()
}
