//! Writing GGUF files (version 3), as `llama.cpp` lays them out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use half::f16;

use super::value::{Array, Value};
use crate::atomic::atomic_write;
use crate::error::Result;

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
/// `GGML_TYPE_F32` and `GGML_TYPE_F16`.
const F32: u32 = 0;
const F16: u32 = 1;
/// `GGUF_TYPE_STRING` and `GGUF_TYPE_ARRAY`.
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A tensor to write: shape with the slowest dimension first, and row-major values.
type Tensor = (Vec<usize>, Vec<f32>);

/// Writes a file, atomically. Matrices become half precision where all values fit, and everything else stays single.
///
/// # Errors
/// [`crate::error::Error::Io`].
pub(in crate::checkpoint) fn write(
    path: &Path,
    metadata: &BTreeMap<String, Value>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let tensors: Vec<Stored<'_>> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor, encoding(tensor))).collect();
    let head = head(metadata, &tensors);
    atomic_write(path, |file| {
        file.write_all(&head)?;
        pad(file, head.len())?;
        for &(_, (_, values), encoding) in &tensors {
            write_values(file, values, encoding)?;
            pad(file, values.len() * width(encoding))?;
        }
        Ok(())
    })
}

/// Name, tensor, and the number of the type that it is stored as.
type Stored<'a> = (&'a str, &'a Tensor, u32);

/// What stands before the tensor data.
fn head(metadata: &BTreeMap<String, Value>, tensors: &[Stored<'_>]) -> Vec<u8> {
    let mut head = b"GGUF".to_vec();
    head.extend(VERSION.to_le_bytes());
    put_length(&mut head, tensors.len());
    put_length(&mut head, metadata.len());
    for (key, value) in metadata {
        put_text(&mut head, key);
        put_value(&mut head, value);
    }
    let mut offset = 0;
    for &(name, (shape, values), encoding) in tensors {
        put_text(&mut head, name);
        head.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|&size| put_length(&mut head, size));
        head.extend(encoding.to_le_bytes());
        put_length(&mut head, offset);
        offset += (values.len() * width(encoding)).next_multiple_of(ALIGNMENT);
    }
    head
}

fn encoding((shape, values): &Tensor) -> u32 {
    let fits = |value: &f32| f16::from_f32(*value).is_finite();
    if shape.len() > 1 && values.iter().all(fits) { F16 } else { F32 }
}

fn width(encoding: u32) -> usize {
    if encoding == F16 { 2 } else { 4 }
}

fn write_values(file: &mut impl Write, values: &[f32], encoding: u32) -> io::Result<()> {
    values.iter().try_for_each(|&value| match encoding {
        F16 => file.write_all(&f16::from_f32(value).to_le_bytes()),
        _ => file.write_all(&value.to_le_bytes()),
    })
}

fn pad(file: &mut impl Write, written: usize) -> io::Result<()> {
    file.write_all(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend(text.as_bytes());
}

/// Type and value. Integers are written with 32 bits where they fit, which is what llama.cpp asks of its own keys.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::Unsigned(number) => match u32::try_from(*number) {
            Ok(number) => put(4, &number.to_le_bytes()),
            Err(_) => put(10, &number.to_le_bytes()),
        },
        Value::Signed(number) => match i32::try_from(*number) {
            Ok(number) => put(5, &number.to_le_bytes()),
            Err(_) => put(11, &number.to_le_bytes()),
        },
        Value::Float32(number) => put(6, &number.to_le_bytes()),
        Value::Float64(number) => put(12, &number.to_le_bytes()),
        Value::Bool(truth) => put(7, &[u8::from(*truth)]),
        Value::String(text) => {
            put(STRING, &[]);
            put_text(out, text);
        }
        Value::Array(array) => {
            put(ARRAY, &[]);
            put_array(out, array);
        }
    }
}

/// Type of the elements, their number, and the elements.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! numbers {
        ($kind:literal, $numbers:expr) => {{
            out.extend(u32::to_le_bytes($kind));
            put_length(out, $numbers.len());
            $numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }};
    }
    match array {
        Array::Uint8(numbers) => numbers!(0, numbers),
        Array::Int8(numbers) => numbers!(1, numbers),
        Array::Uint16(numbers) => numbers!(2, numbers),
        Array::Int16(numbers) => numbers!(3, numbers),
        Array::Uint32(numbers) => numbers!(4, numbers),
        Array::Int32(numbers) => numbers!(5, numbers),
        Array::Float32(numbers) => numbers!(6, numbers),
        Array::Uint64(numbers) => numbers!(10, numbers),
        Array::Int64(numbers) => numbers!(11, numbers),
        Array::Float64(numbers) => numbers!(12, numbers),
        Array::Bool(truths) => {
            out.extend(7u32.to_le_bytes());
            put_length(out, truths.len());
            out.extend(truths.iter().map(|truth| u8::from(*truth)));
        }
        Array::String(texts) => {
            out.extend(STRING.to_le_bytes());
            put_length(out, texts.len());
            texts.iter().for_each(|text| put_text(out, text));
        }
        Array::Array(arrays) => {
            out.extend(ARRAY.to_le_bytes());
            put_length(out, arrays.len());
            arrays.iter().for_each(|array| put_array(out, array));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Gguf;
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let metadata: BTreeMap<String, Value> = [
            ("general.architecture", Value::String("llama".to_owned())),
            ("llama.block_count", Value::Unsigned(2)),
            ("large", Value::Unsigned(1 << 40)),
            ("negative", Value::Signed(-3)),
            ("epsilon", Value::Float32(1e-5)),
            ("double", Value::Float64(0.1)),
            ("yes", Value::Bool(true)),
            ("tokens", Value::Array(Array::String(vec!["a".to_owned(), String::new()]))),
            ("types", Value::Array(Array::Int32(vec![1, -1]))),
            ("truths", Value::Array(Array::Bool(vec![true, false]))),
            ("nested", Value::Array(Array::Array(vec![Array::Uint8(vec![7]), Array::Uint8(vec![])]))),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let tensors: BTreeMap<String, Tensor> = [
            ("matrix", (vec![2, 3], vec![1.0, -2.0, 0.5, 0.25, 1.5, -0.125])),
            ("norm", (vec![3], vec![1e-7, 1.0, 3.1])),
            ("too-large", (vec![1, 2], vec![1e6, 1.0])),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .into();
        write(&path, &metadata, &tensors).unwrap();
        let read = Gguf::open(&path).unwrap();
        let back: BTreeMap<String, Value> = read.metadata().map(|(k, v)| (k.to_owned(), v.clone())).collect();
        assert_eq!(back, metadata);
        for (name, (shape, values)) in &tensors {
            assert_eq!(read.shape(name), Some(shape.as_slice()));
            assert_eq!(&read.tensor_f32(name).unwrap(), values, "{name}");
        }
    }
}
