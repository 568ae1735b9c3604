//! Metadata values of a GGUF file.

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An unsigned integer of 8, 16, 32 or 64 bits.
    Unsigned(u64),
    /// A signed integer of 8, 16, 32 or 64 bits.
    Signed(i64),
    /// A float of 32 bits.
    Float32(f32),
    /// A float of 64 bits.
    Float64(f64),
    /// A boolean.
    Bool(bool),
    /// Text.
    String(String),
    /// A list of values of one type.
    Array(Array),
}

impl Value {
    /// Type and, where short, content; for error messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Float32(number) => format!("the float {number}"),
            Self::Float64(number) => format!("the float {number}"),
            Self::Bool(truth) => truth.to_string(),
            Self::String(_) => "text".to_owned(),
            Self::Array(_) => "a list".to_owned(),
        }
    }
}

/// A list of values of one type, at the width of the file.
#[expect(missing_docs, reason = "the variants are the format's element types")]
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    Uint8(Vec<u8>),
    Int8(Vec<i8>),
    Uint16(Vec<u16>),
    Int16(Vec<i16>),
    Uint32(Vec<u32>),
    Int32(Vec<i32>),
    Uint64(Vec<u64>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
}

/// A Rust type that some metadata values convert to without loss.
pub trait FromValue<'a>: Sized {
    /// What the conversion accepts, for error messages.
    const EXPECTED: &'static str;

    /// The converted value, or `None` for a value of another type or range.
    fn from_value(value: &'a Value) -> Option<Self>;
}

impl FromValue<'_> for u32 {
    const EXPECTED: &'static str = "an integer of at most 32 bits, not negative";

    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::Unsigned(number) => number.try_into().ok(),
            Value::Signed(number) => number.try_into().ok(),
            _ => None,
        }
    }
}

impl FromValue<'_> for f64 {
    const EXPECTED: &'static str = "a float";

    /// A 32-bit float becomes the decimal number that it was most likely made from, 1e-5 and not
    /// 9.999999747378752e-6.
    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::Float32(number) => number.to_string().parse().ok(),
            Value::Float64(number) => Some(number),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a boolean";

    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Bool(truth) = *value { Some(truth) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "text";

    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [String] {
    const EXPECTED: &'static str = "a list of text";

    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::String(texts)) = value { Some(texts) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [i32] {
    const EXPECTED: &'static str = "a list of signed 32-bit integers";

    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::Int32(numbers)) = value { Some(numbers) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [f32] {
    const EXPECTED: &'static str = "a list of 32-bit floats";

    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::Float32(numbers)) = value { Some(numbers) } else { None }
    }
}
