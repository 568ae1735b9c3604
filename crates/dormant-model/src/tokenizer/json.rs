//! Checks on `tokenizer.json`, before the `tokenizers` crate, which trusts it, sees it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::MAX_VOCABULARY;
use super::error::TokenizerError;
use crate::error::{Error, Result};

/// Why a `tokenizer.json` is refused.
pub(super) enum Invalid {
    Json(serde_json::Error),
    Content(TokenizerError),
}

impl From<TokenizerError> for Invalid {
    fn from(error: TokenizerError) -> Self {
        Self::Content(error)
    }
}

#[derive(Deserialize)]
struct TokenizerFile {
    model: BytePairs,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

#[derive(Deserialize)]
struct BytePairs {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rule {
    Pair(String, String),
    Text(String),
}

/// Checks everything that the library would take on trust or would answer with a panic.
pub(super) fn validate(bytes: &[u8]) -> std::result::Result<(), Invalid> {
    let file: TokenizerFile = serde_json::from_slice(bytes).map_err(Invalid::Json)?;
    let model = &file.model;
    if let Some(found) = model.kind.as_ref().filter(|kind| *kind != "BPE") {
        return Err(TokenizerError::Model { found: found.clone(), expected: "BPE" }.into());
    }
    reject_features(&file)?;
    let vocab: HashMap<String, u64> = serde_json::from_value(model.vocab.clone()).map_err(Invalid::Json)?;
    check_ids(&vocab)?;
    check_merges(&model.merges, &vocab)?;
    if mentions(&file.pre_tokenizer, "ByteLevel") {
        check_alphabet(|token| vocab.contains_key(token))?;
    }
    Ok(())
}

fn reject_features(file: &TokenizerFile) -> std::result::Result<(), TokenizerError> {
    let nonempty = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let unsupported = [
        // Random merges would make the ids of a text depend on chance.
        ("dropout", file.model.dropout.is_some_and(|rate| rate != 0.0)),
        ("continuing_subword_prefix", nonempty(&file.model.continuing_subword_prefix)),
        ("end_of_word_suffix", nonempty(&file.model.end_of_word_suffix)),
        ("Precompiled", mentions(&file.normalizer, "Precompiled")),
    ];
    match unsupported.into_iter().find(|(_, used)| *used) {
        Some((feature, _)) => Err(TokenizerError::Unsupported { feature }),
        None => Ok(()),
    }
}

/// Whether a component, or one inside it, has this `type`.
fn mentions(component: &Value, kind: &str) -> bool {
    match component {
        Value::Object(fields) => {
            fields.get("type").is_some_and(|found| found == kind)
                || fields.values().any(|inner| mentions(inner, kind))
        }
        Value::Array(items) => items.iter().any(|inner| mentions(inner, kind)),
        _ => false,
    }
}

fn check_ids(vocab: &HashMap<String, u64>) -> std::result::Result<(), TokenizerError> {
    let mut seen = HashSet::with_capacity(vocab.len());
    for (token, &id) in vocab {
        if id >= MAX_VOCABULARY as u64 {
            return Err(TokenizerError::IdOutOfRange {
                field: "model.vocab",
                id,
                vocab_size: MAX_VOCABULARY,
            });
        }
        if !seen.insert(id) {
            return Err(TokenizerError::Duplicate { token: token.clone(), id });
        }
    }
    Ok(())
}

fn check_merges(merges: &[Rule], vocab: &HashMap<String, u64>) -> std::result::Result<(), TokenizerError> {
    for (index, rule) in merges.iter().enumerate() {
        let sides = match rule {
            Rule::Pair(left, right) => Some((left.as_str(), right.as_str())),
            Rule::Text(text) => split_merge(text),
        };
        if !sides.is_some_and(|(left, right)| is_merge(left, right, |token| vocab.contains_key(token))) {
            let rule = match rule {
                Rule::Pair(left, right) => format!("{left} {right}"),
                Rule::Text(text) => text.clone(),
            };
            return Err(TokenizerError::Merge { index, rule });
        }
    }
    Ok(())
}

/// The two sides of a rule `left right`.
pub(super) fn split_merge(rule: &str) -> Option<(&str, &str)> {
    rule.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
}

/// Whether both sides of a rule and their union are tokens.
pub(super) fn is_merge(left: &str, right: &str, is_token: impl Fn(&str) -> bool) -> bool {
    is_token(left) && is_token(right) && is_token(&[left, right].concat())
}

/// A byte-level vocabulary can write at least ASCII. Bytes that its training text lacked may be missing (`SmolLM2` has
/// no 0x04, for example); the library leaves such bytes out, here as in Python.
pub(super) fn check_alphabet(is_token: impl Fn(&str) -> bool) -> std::result::Result<(), TokenizerError> {
    // Space and line feed are written as these letters.
    let mut ascii = ('!'..='~').chain(['Ġ', 'Ċ']);
    match ascii.find(|token| !is_token(token.encode_utf8(&mut [0; 4]))) {
        Some(token) => Err(TokenizerError::MissingByte { token }),
        None => Ok(()),
    }
}

/// The begin and end tokens that the files beside a `tokenizer.json` name.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) bos: Option<NamedToken>,
    pub(super) eos: Option<NamedToken>,
}

/// A token by its text or by its id.
pub(super) enum NamedToken {
    Text(String),
    Id(u32),
}

impl NamedToken {
    pub(super) fn id(&self, tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
        match self {
            Self::Text(text) => tokenizer.token_to_id(text),
            Self::Id(id) => Some(*id),
        }
    }

    /// `"</s>"`, `{"content": "</s>"}`, `2` or `[2, 32000]`.
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Object(fields) => fields.get("content").and_then(Self::from_json),
            Value::Array(ids) => ids.first().and_then(Self::from_json),
            Value::Number(id) => id.as_u64().and_then(|id| u32::try_from(id).ok()).map(Self::Id),
            _ => None,
        }
    }
}

/// Reads the begin and end tokens: `tokenizer_config.json` names them, `config.json` gives their ids.
pub(super) fn read_ends(folder: &Path) -> Result<Ends> {
    let tokenizer_config = read_optional(&folder.join("tokenizer_config.json"))?;
    let config = read_optional(&folder.join("config.json"))?;
    let find = |token: &str, id: &str| {
        let named = tokenizer_config.get(token).and_then(NamedToken::from_json);
        named.or_else(|| config.get(id).and_then(NamedToken::from_json))
    };
    Ok(Ends { bos: find("bos_token", "bos_token_id"), eos: find("eos_token", "eos_token_id") })
}

/// A JSON file, or `null` when there is none.
fn read_optional(path: &Path) -> Result<Value> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(Error::json(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
