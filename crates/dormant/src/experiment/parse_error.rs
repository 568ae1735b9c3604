//! What is wrong with an experiment file, where, and what was probably meant.

use crate::error::{CliError, suggestion};

/// Turns the parser's error into one that names the line and suggests the closest key or value.
/// `text` is the file, when the position in it is meaningful.
pub(super) fn explain(error: &toml::de::Error, file: &str, text: Option<&str>) -> CliError {
    let unknown = unknown(error.message());
    let place = match (error.span(), text) {
        (Some(span), Some(text)) => {
            // For a table that is chosen by its `kind`, the parser only knows where the table begins.
            let inside = unknown.as_ref().and_then(|unknown| text.get(span.start..)?.find(&unknown.given));
            format!("`{file}`, line {}", line_of(text, span.start + inside.unwrap_or(0)))
        }
        _ => format!("`{file}`"),
    };
    let (message, hint) = match unknown {
        Some(Unknown { what, given, known }) => {
            (format!("unknown {what} `{given}`"), suggestion(&given, &known))
        }
        None => (error.message().trim_end().replace('\n', "; "), None),
    };
    let error = CliError::usage(format!("{place}: {message}"));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The line, from 1, that holds byte `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

struct Unknown {
    what: &'static str,
    given: String,
    known: Vec<String>,
}

/// Takes apart serde's "unknown field `x`, expected one of `a`, `b`", the only place where it names the known keys.
fn unknown(message: &str) -> Option<Unknown> {
    let (what, rest) = [("unknown field ", "key"), ("unknown variant ", "value")]
        .iter()
        .find_map(|(prefix, what)| Some((*what, message.strip_prefix(prefix)?)))?;
    let mut quoted = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    Some(Unknown { what, given: quoted.next()?, known: quoted.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of("a\nb\nc", 0), 1);
        assert_eq!(line_of("a\nb\nc", 2), 2);
        assert_eq!(line_of("a\nb\nc", 400), 3);
    }
}
