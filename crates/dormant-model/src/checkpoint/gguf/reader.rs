//! The primitives of a GGUF header: every length is checked against what is left before it is believed.

use std::io::{BufReader, Read};

use super::error::GgufError;
use super::value::{Array, Value};

/// Real headers are below 20 MB. The limit bounds the memory that a hostile one can take.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_NAME_BYTES: u64 = 65_535;
const MAX_NESTING: usize = 4;

type Result<T> = std::result::Result<T, GgufError>;

/// Reads a header from front to back.
pub(super) struct HeaderReader<R> {
    input: BufReader<R>,
    position: u64,
    limit: u64,
}

impl<R: Read> HeaderReader<R> {
    pub(super) fn new(input: R, file_length: u64) -> Self {
        let limit = file_length.min(MAX_HEADER_BYTES);
        Self { input: BufReader::with_capacity(1 << 16, input), position: 0, limit }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes from `position` to `limit`, for `part` of the file.
    fn expect(&self, part: &str, needed: u64) -> Result<()> {
        let left = self.limit - self.position;
        if needed <= left {
            return Ok(());
        }
        Err(GgufError::Truncated { part: part.to_owned(), needed, left })
    }

    pub(super) fn bytes<const N: usize>(&mut self, part: &str) -> Result<[u8; N]> {
        self.expect(part, N as u64)?;
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, part: &str) -> Result<u32> {
        self.bytes(part).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, part: &str) -> Result<u64> {
        self.bytes(part).map(u64::from_le_bytes)
    }

    /// A number of items that take at least `item_bytes` each.
    pub(super) fn count(&mut self, part: &str, item_bytes: u64) -> Result<usize> {
        let count = self.u64(part)?;
        self.expect(part, count.saturating_mul(item_bytes))?;
        // It fits, because it is at most the length of the header.
        Ok(count as usize)
    }

    pub(super) fn string(&mut self, part: &str) -> Result<String> {
        let length = self.count(part, 1)?;
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        self.position += length as u64;
        String::from_utf8(bytes).map_err(|_| GgufError::Text { part: part.to_owned() })
    }

    /// A key or tensor name.
    pub(super) fn name(&mut self, part: &str) -> Result<String> {
        let name = self.string(part)?;
        let length = name.len() as u64;
        if length > MAX_NAME_BYTES {
            return Err(GgufError::NameLength { part: part.to_owned(), length, limit: MAX_NAME_BYTES });
        }
        Ok(name)
    }

    pub(super) fn value(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32(key)?;
        Ok(match kind {
            0 => Value::Unsigned(self.bytes(key).map(u8::from_le_bytes)?.into()),
            1 => Value::Signed(self.bytes(key).map(i8::from_le_bytes)?.into()),
            2 => Value::Unsigned(self.bytes(key).map(u16::from_le_bytes)?.into()),
            3 => Value::Signed(self.bytes(key).map(i16::from_le_bytes)?.into()),
            4 => Value::Unsigned(self.bytes(key).map(u32::from_le_bytes)?.into()),
            5 => Value::Signed(self.bytes(key).map(i32::from_le_bytes)?.into()),
            6 => Value::Float32(self.bytes(key).map(f32::from_le_bytes)?),
            7 => Value::Bool(self.boolean(key)?),
            8 => Value::String(self.string(key)?),
            9 => Value::Array(self.array(key, MAX_NESTING)?),
            10 => Value::Unsigned(self.bytes(key).map(u64::from_le_bytes)?),
            11 => Value::Signed(self.bytes(key).map(i64::from_le_bytes)?),
            12 => Value::Float64(self.bytes(key).map(f64::from_le_bytes)?),
            found => return Err(GgufError::ValueType { key: key.to_owned(), found }),
        })
    }

    fn array(&mut self, key: &str, levels: usize) -> Result<Array> {
        if levels == 0 {
            return Err(GgufError::Nesting { key: key.to_owned(), limit: MAX_NESTING });
        }
        let kind = self.u32(key)?;
        Ok(match kind {
            0 => Array::Uint8(self.numbers(key, u8::from_le_bytes)?),
            1 => Array::Int8(self.numbers(key, i8::from_le_bytes)?),
            2 => Array::Uint16(self.numbers(key, u16::from_le_bytes)?),
            3 => Array::Int16(self.numbers(key, i16::from_le_bytes)?),
            4 => Array::Uint32(self.numbers(key, u32::from_le_bytes)?),
            5 => Array::Int32(self.numbers(key, i32::from_le_bytes)?),
            6 => Array::Float32(self.numbers(key, f32::from_le_bytes)?),
            7 => Array::Bool(self.items(key, 1, |reader| reader.boolean(key))?),
            8 => Array::String(self.items(key, 8, |reader| reader.string(key))?),
            9 => Array::Array(self.items(key, 12, |reader| reader.array(key, levels - 1))?),
            10 => Array::Uint64(self.numbers(key, u64::from_le_bytes)?),
            11 => Array::Int64(self.numbers(key, i64::from_le_bytes)?),
            12 => Array::Float64(self.numbers(key, f64::from_le_bytes)?),
            found => return Err(GgufError::ValueType { key: key.to_owned(), found }),
        })
    }

    fn numbers<T, const N: usize>(&mut self, key: &str, convert: fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.items(key, N as u64, |reader| reader.bytes(key).map(convert))
    }

    fn items<T>(
        &mut self,
        key: &str,
        item_bytes: u64,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.count(key, item_bytes)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn boolean(&mut self, key: &str) -> Result<bool> {
        match self.bytes(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [found] => Err(GgufError::Boolean { key: key.to_owned(), found }),
        }
    }
}
