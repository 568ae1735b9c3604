//! The rules as data: `rules/*.toml`.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use super::taint::{Danger, Dangers};

/// What a language's walker is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Rules {
    /// Names of parameters that the operator sets, not the attacker.
    #[serde(deserialize_with = "pattern")]
    pub(super) trusted: Regex,
    /// Names of unknown functions that reject bad input.
    #[serde(deserialize_with = "pattern")]
    pub(super) validators: Regex,
    /// Names of unknown functions that return harmless text.
    #[serde(deserialize_with = "pattern")]
    pub(super) escapers: Regex,
    /// Calls that return untrusted data.
    pub(super) sources: Vec<String>,
    /// Calls whose result does not carry their arguments.
    pub(super) neutral: Vec<String>,
    #[serde(rename = "sink")]
    pub(super) sinks: Vec<Sink>,
    #[serde(rename = "secure")]
    pub(super) secure: Vec<Secure>,
    #[serde(rename = "sanitiser")]
    pub(super) sanitisers: Vec<Sanitiser>,
}

/// A call that must not get untrusted data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sink {
    pub(super) cwe: u16,
    pub(super) rule: String,
    pub(super) message: String,
    /// What the data could do there; none: the call is bad whatever it gets.
    pub(super) danger: Option<Danger>,
    pub(super) calls: Vec<String>,
    /// Positions of the arguments; -1 is the receiver, -2 every argument.
    #[serde(default = "first")]
    pub(super) args: Vec<i8>,
    /// Names of the arguments.
    #[serde(default)]
    pub(super) keywords: Vec<String>,
    /// `keyword=value`: only then.
    pub(super) when: Option<String>,
    /// `keyword=value`: then it is the secure form.
    #[serde(default)]
    pub(super) unless: Vec<String>,
    /// Reported only to those who ask for this weakness.
    #[serde(default)]
    pub(super) strict: bool,
}

fn first() -> Vec<i8> {
    vec![0]
}

/// A call that does what a sink does without its danger: evidence that a sink was avoided.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secure {
    pub(super) cwe: u16,
    pub(super) calls: Vec<String>,
}

/// A call whose result has lost dangers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sanitiser {
    pub(super) calls: Vec<String>,
    pub(super) clears: Vec<Danger>,
    /// It raises on bad input, so that the input itself is good where it returns.
    #[serde(default)]
    pub(super) raises: bool,
}

impl Sanitiser {
    pub(super) fn dangers(&self) -> Dangers {
        self.clears.iter().fold(Dangers::NONE, |all, &danger| all.with(danger.into()))
    }
}

fn pattern<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
    let text = String::deserialize(deserializer)?;
    Regex::new(&text).map_err(serde::de::Error::custom)
}

pub(super) static PYTHON: LazyLock<Rules> = LazyLock::new(|| parse(include_str!("rules/python.toml")));
pub(super) static C: LazyLock<Rules> = LazyLock::new(|| parse(include_str!("rules/c.toml")));

fn parse(text: &str) -> Rules {
    toml::from_str(text).expect("the embedded rules are parsed by a test")
}

/// Whether a dotted name is meant by a pattern: `os.system` also matches at the end of a longer name, `*.execute`
/// is a method of anything, `open` is that name alone.
pub(super) fn names(pattern: &str, path: &str) -> bool {
    if let Some(method) = pattern.strip_prefix('*') {
        path.ends_with(method)
    } else if pattern.contains('.') {
        path.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    } else {
        path == pattern
    }
}

pub(super) fn any(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|pattern| names(pattern, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_rules_parse() {
        assert!(PYTHON.sinks.len() > 10 && C.sinks.len() > 5);
    }

    #[test]
    fn patterns_name_calls() {
        assert!(names("os.system", "os.system") && names("request.args", "flask.request.args"));
        assert!(!names("os.system", "macos.system"));
        assert!(names("*.execute", "db.cursor().execute") && !names("*.execute", "execute"));
        assert!(names("open", "open") && !names("open", "webbrowser.open"));
    }
}
