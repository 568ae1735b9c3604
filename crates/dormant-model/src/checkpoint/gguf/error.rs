//! What can be wrong with a GGUF file.

use std::io;

/// What is wrong with a GGUF file. Each variant names the field or tensor at fault.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The system could not read on.
    #[error("the file could not be read")]
    Io(#[from] io::Error),

    /// The file does not begin with the format's magic bytes.
    #[error("the file begins with {found:?} instead of \"GGUF\"; it is not a GGUF file")]
    Magic {
        /// The first bytes.
        found: [u8; 4],
    },

    /// The format version is not read.
    #[error("format version {found}; expected 2 or 3, little-endian")]
    Version {
        /// The version.
        found: u32,
    },

    /// The file ends inside of something.
    #[error("{part} needs {needed} bytes, but only {left} are left; the file is truncated or corrupt")]
    Truncated {
        /// What was being read.
        part: String,
        /// Bytes it takes at least.
        needed: u64,
        /// Bytes that are there.
        left: u64,
    },

    /// Text that is not UTF-8.
    #[error("{part} is not UTF-8")]
    Text {
        /// What was being read.
        part: String,
    },

    /// A name is longer than the format allows.
    #[error("{part} is {length} bytes long; at most {limit} are allowed")]
    NameLength {
        /// What was being read.
        part: String,
        /// Its length in bytes.
        length: u64,
        /// The longest possible.
        limit: u64,
    },

    /// A metadata value has a type that the format does not define.
    #[error("metadata `{key}` has value type {found}; the format defines 0 to 12")]
    ValueType {
        /// The metadata key.
        key: String,
        /// The number of the type.
        found: u32,
    },

    /// A boolean that is neither 0 nor 1.
    #[error("metadata `{key}` is a boolean of value {found}; expected 0 or 1")]
    Boolean {
        /// The metadata key.
        key: String,
        /// The byte.
        found: u8,
    },

    /// Arrays of arrays of arrays ...
    #[error("metadata `{key}` nests arrays deeper than {limit} levels")]
    Nesting {
        /// The metadata key.
        key: String,
        /// The number of levels that are read.
        limit: usize,
    },

    /// A metadata key that is there twice.
    #[error("metadata `{key}` is there twice")]
    DuplicateKey {
        /// The metadata key.
        key: String,
    },

    /// A metadata value that the model needs is absent.
    #[error("metadata `{key}` is missing")]
    MissingKey {
        /// The metadata key.
        key: String,
    },

    /// A metadata value of another type than its meaning allows.
    #[error("metadata `{key}` is {found}; expected {expected}")]
    KeyType {
        /// The metadata key.
        key: String,
        /// The type or value found.
        found: String,
        /// The type needed.
        expected: &'static str,
    },

    /// The alignment of tensor data is not usable.
    #[error("metadata `general.alignment` is {found}; expected a power of two")]
    Alignment {
        /// The alignment in bytes.
        found: u32,
    },

    /// A tensor that is there twice.
    #[error("tensor `{tensor}` is there twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },

    /// A tensor of no or too many dimensions.
    #[error("tensor `{tensor}` has {found} dimensions; expected 1 to 4")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Their number.
        found: u32,
    },

    /// A tensor too large for any memory.
    #[error("tensor `{tensor}` has the dimensions {dimensions:?}; their product is too large")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// The dimensions, fastest first.
        dimensions: Vec<u64>,
    },

    /// A tensor in a type that is not read.
    #[error(
        "tensor `{tensor}` has type {found}; expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K \
         or Q6_K: convert the file to one of these"
    )]
    TensorType {
        /// The tensor.
        tensor: String,
        /// Name or number of its type.
        found: String,
    },

    /// Rows that do not consist of whole quantisation blocks.
    #[error("tensor `{tensor}` has rows of {row} values; its type needs a multiple of {block}")]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Values per row.
        row: u64,
        /// Values per block.
        block: usize,
    },

    /// A tensor at an offset that is not aligned.
    #[error("tensor `{tensor}` has offset {offset}; expected a multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Offset in the data section in bytes.
        offset: u64,
        /// The file's alignment in bytes.
        alignment: u64,
    },

    /// A tensor that reaches beyond the end of the file.
    #[error(
        "tensor `{tensor}` takes {bytes} bytes at offset {offset} of the {available} bytes of data; \
         the file is truncated or corrupt"
    )]
    OutsideFile {
        /// The tensor.
        tensor: String,
        /// Offset in the data section in bytes.
        offset: u64,
        /// Length in bytes.
        bytes: u64,
        /// Length of the data section in bytes.
        available: u64,
    },

    /// Two tensors that share bytes.
    #[error("tensors `{first}` and `{second}` share bytes of the file")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside of it.
        second: String,
    },
}
