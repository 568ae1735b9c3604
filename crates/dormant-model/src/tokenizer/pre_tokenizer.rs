//! The pre-tokenisers of GGUF files: how text is cut before pairs of bytes are merged.
//!
//! A GGUF file only names its pre-tokeniser. Names and regular expressions are those of llama.cpp's `llama-vocab.cpp`;
//! where Hugging Face writes the same cut in another way, that way is taken, so that the saved `tokenizer.json`
//! resembles the original.

use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::{NormalizerWrapper, SplitDelimiterBehavior};

use super::error::TokenizerError;

const KNOWN: &[&str] = &["smollm", "gpt-2", "llama-bpe", "llama3", "qwen2", "default"];

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// llama.cpp's fallback when a file names no pre-tokeniser: each expression cuts the pieces of the one before.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// What happens to text before the byte-pair encoding.
pub(super) struct TextSplit {
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: PreTokenizerWrapper,
    /// Whole words that are in the vocabulary are taken as they are (Llama 3).
    pub(super) ignore_merges: bool,
}

/// The text split that `tokenizer.ggml.pre` names.
pub(super) fn named(name: &str) -> Result<TextSplit, TokenizerError> {
    let plain = |pre_tokenizer| TextSplit { normalizer: None, pre_tokenizer, ignore_merges: false };
    Ok(match name {
        "smollm" => plain(sequence(vec![Digits::new(true).into(), byte_level(true).into()])),
        "gpt-2" => plain(byte_level(true).into()),
        "llama-bpe" | "llama3" | "llama-v3" => {
            TextSplit { ignore_merges: true, ..plain(by_regexes(&[LLAMA3])?) }
        }
        "qwen2" => TextSplit { normalizer: Some(NFC.into()), ..plain(by_regexes(&[QWEN2])?) },
        "default" => plain(by_regexes(&DEFAULT)?),
        _ => return Err(TokenizerError::PreTokenizer { found: name.to_owned(), expected: KNOWN }),
    })
}

fn by_regexes(regexes: &[&str]) -> Result<PreTokenizerWrapper, TokenizerError> {
    let mut steps = Vec::with_capacity(regexes.len() + 1);
    for &regex in regexes {
        let split = Split::new(
            tokenizers::pre_tokenizers::split::SplitPattern::Regex(regex.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(TokenizerError::library("split text"))?;
        steps.push(split.into());
    }
    steps.push(byte_level(false).into());
    Ok(sequence(steps))
}

fn sequence(steps: Vec<PreTokenizerWrapper>) -> PreTokenizerWrapper {
    Sequence::new(steps).into()
}

fn byte_level(use_regex: bool) -> ByteLevel {
    ByteLevel::new(false, true, use_regex)
}
