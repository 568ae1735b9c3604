//! The tokenizer metadata of a GGUF file, checked and turned into a tokenizer.

use std::collections::HashSet;

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::error::TokenizerError;
use super::{MAX_VOCABULARY, json, pre_tokenizer};
use crate::checkpoint::gguf::Gguf;
use crate::error::Result;

type Checked<T> = std::result::Result<T, TokenizerError>;

const MAX_TOKEN_BYTES: usize = 4096;
/// `LLAMA_TOKEN_TYPE_CONTROL` and `LLAMA_TOKEN_TYPE_USER_DEFINED` of llama.cpp; the types are 1 to 6.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const TOKEN_TYPES: std::ops::RangeInclusive<i32> = 1..=6;

/// The fields `tokenizer.ggml.*` of a GGUF file, not yet checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vocabulary<'a> {
    /// `model`: the kind of tokenizer; byte-level byte-pair encoding is called `gpt2`.
    pub(super) model: &'a str,
    /// `pre`: the name of the pre-tokeniser; `default` when the file has none.
    pub(super) pre: &'a str,
    /// `tokens`: the token of each id.
    pub(super) tokens: &'a [String],
    /// `token_type`: the type of each token; all normal when empty.
    pub(super) token_types: &'a [i32],
    /// `merges`: the rules `left right`, most frequent first.
    pub(super) merges: &'a [String],
    /// `bos_token_id`.
    pub(super) bos: Option<u32>,
    /// `eos_token_id`.
    pub(super) eos: Option<u32>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn read(gguf: &'a Gguf) -> Result<Self> {
        Ok(Self {
            model: gguf.require("tokenizer.ggml.model")?,
            pre: gguf.get("tokenizer.ggml.pre")?.unwrap_or("default"),
            tokens: gguf.require("tokenizer.ggml.tokens")?,
            token_types: gguf.get("tokenizer.ggml.token_type")?.unwrap_or_default(),
            merges: gguf.require("tokenizer.ggml.merges")?,
            bos: gguf.get("tokenizer.ggml.bos_token_id")?,
            eos: gguf.get("tokenizer.ggml.eos_token_id")?,
        })
    }

    pub(super) fn build(&self) -> Checked<tokenizers::Tokenizer> {
        if self.model != "gpt2" {
            return Err(TokenizerError::Model { found: self.model.to_owned(), expected: "gpt2" });
        }
        self.check_tokens()?;
        let merges = self.merges()?;
        let vocab: Vocab = (0u32..).zip(self.tokens).map(|(id, token)| (token.clone(), id)).collect();
        let split = pre_tokenizer::named(self.pre)?;
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(split.ignore_merges)
            .build()
            .map_err(TokenizerError::library("build"))?;
        let mut tokenizer = tokenizers::Tokenizer::new(bpe);
        tokenizer.with_normalizer(split.normalizer).map_err(TokenizerError::library("build"))?;
        tokenizer
            .with_pre_tokenizer(Some(split.pre_tokenizer))
            .with_decoder(Some(ByteLevel::new(false, true, true)));
        tokenizer.add_tokens(self.added_tokens()).map_err(TokenizerError::library("build"))?;
        Ok(tokenizer)
    }

    fn check_tokens(&self) -> Checked<()> {
        let count = self.tokens.len();
        if count > MAX_VOCABULARY {
            return Err(TokenizerError::TooLarge { what: "vocabulary", found: count, limit: MAX_VOCABULARY });
        }
        if !self.token_types.is_empty() && self.token_types.len() != count {
            let (field, found) = ("tokenizer.ggml.token_type", self.token_types.len());
            return Err(TokenizerError::CountMismatch { field, tokens: count, found });
        }
        if let Some((id, &found)) =
            self.token_types.iter().enumerate().find(|(_, kind)| !TOKEN_TYPES.contains(kind))
        {
            return Err(TokenizerError::TokenType { id, found });
        }
        let mut seen = HashSet::with_capacity(count);
        for (id, token) in (0u64..).zip(self.tokens) {
            if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
                return Err(TokenizerError::TokenLength { id, bytes: token.len(), limit: MAX_TOKEN_BYTES });
            }
            if !seen.insert(token.as_str()) {
                return Err(TokenizerError::Duplicate { token: token.clone(), id });
            }
        }
        json::check_alphabet(|token| seen.contains(token))
    }

    fn merges(&self) -> Checked<Merges> {
        if self.merges.len() > MAX_VOCABULARY {
            let found = self.merges.len();
            return Err(TokenizerError::TooLarge { what: "merges", found, limit: MAX_VOCABULARY });
        }
        let tokens: HashSet<&str> = self.tokens.iter().map(String::as_str).collect();
        let rule = |(index, rule): (usize, &String)| {
            json::split_merge(rule)
                .filter(|&(left, right)| json::is_merge(left, right, |token| tokens.contains(token)))
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
                .ok_or_else(|| TokenizerError::Merge { index, rule: rule.clone() })
        };
        self.merges.iter().enumerate().map(rule).collect()
    }

    /// Control tokens are special. Tokens that users defined are found in any text before it is cut.
    fn added_tokens(&self) -> Vec<AddedToken> {
        let added = |(token, &kind): (&String, &i32)| {
            let special = kind == CONTROL;
            (special || kind == USER_DEFINED)
                .then(|| AddedToken::from(token.as_str(), special).normalized(false))
        };
        self.tokens.iter().zip(self.token_types).filter_map(added).collect()
    }
}
