//! The Jinja dialect of `transformers`: its whitespace rules, functions and filters, with a budget.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::MAX_OUTPUT_BYTES;

/// Instructions that one rendering may execute; also bounds its memory to about 64 bytes each.
const FUEL: u64 = 1_000_000;
const BYTES_PER_FUEL: u64 = 64;

/// An environment as `transformers` sets it up, in which a template has a budget of time and memory.
///
/// One gap is left: joining a huge nested list to a text by an operator or filter (`list ~ ''`) is not paid for.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(write_bounded);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment
}

/// Writes a value, and pays for it. Fuel alone does not cover lists that hold the same list many times.
fn write_bounded(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_none() {
        return out.write_str("None").map_err(Error::from);
    }
    if value.len().is_some_and(|length| length > MAX_OUTPUT_BYTES) {
        return Err(ErrorKind::OutOfFuel.into());
    }
    let mut text = Bounded::default();
    write!(text, "{value}").map_err(|_| Error::from(ErrorKind::OutOfFuel))?;
    out.write_str(&text.paid(state)?).map_err(Error::from)
}

/// A text that refuses to grow beyond what the fuel could pay for.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Bounded {
    fn paid(self, state: &State) -> Result<String, Error> {
        state.consume_fuel(self.0.len() as u64 / BYTES_PER_FUEL)?;
        String::from_utf8(self.0).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
    }
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.0.len() + part.len() > MAX_OUTPUT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: &str) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// The date, 26 July 2024, on every day: a prompt that depends on the clock cannot be reproduced.
/// Llama 3.2's own template takes this date when it is given none.
fn strftime_now(format: &str) -> Result<String, Error> {
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        text.push_str(match characters.next() {
            Some('d') => "26",
            Some('b' | 'h') => "Jul",
            Some('B') => "July",
            Some('m') => "07",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('H' | 'I') => "12",
            Some('M' | 'S') => "00",
            Some('p') => "PM",
            Some('F') => "2024-07-26",
            Some('T') => "12:00:00",
            Some('%') => "%",
            _ => return Err(Error::new(ErrorKind::InvalidOperation, "unknown directive in strftime_now")),
        });
    }
    Ok(text)
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`. Jinja's own filter would escape HTML.
#[expect(clippy::needless_pass_by_value, reason = "the form that `add_filter` accepts")]
fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ascii == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson(ensure_ascii=true) is not supported"));
    }
    match indent {
        Some(width) => dump(state, value, PrettyFormatter::with_indent(" ".repeat(width.min(16)).as_bytes())),
        None => dump(state, value, PythonFormatter),
    }
}

fn dump(state: &State, value: &Value, formatter: impl Formatter) -> Result<String, Error> {
    let mut text = Bounded::default();
    value
        .serialize(&mut Serializer::with_formatter(&mut text, formatter))
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    text.paid(state)
}

/// The separators of Python's `json.dumps`: `", "` and `": "`.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Replaces `{% generation %}…{% endgeneration %}`, an extension of `transformers` that marks the assistant's
/// tokens and leaves the text alone, by a condition that always holds.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        text.push_str(before);
        text.push_str("{%");
        rest = tag;
        let word = rest.trim_start_matches(['-', '+']).trim_start();
        for (name, replacement) in [("generation", "if true"), ("endgeneration", "endif")] {
            let Some(after) = word.strip_prefix(name) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                text.push_str(&rest[..rest.len() - word.len()]);
                text.push_str(replacement);
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}
