//! Text to token ids and back, equal to Hugging Face `tokenizers`, from `tokenizer.json` or from a GGUF file.

mod error;
mod gguf;
mod json;
mod pre_tokenizer;
mod train;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use tokenizers::{Model, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer};

pub use error::TokenizerError;
use gguf::Vocabulary;
pub use train::MIN_VOCABULARY;

use crate::atomic::atomic_write;
use crate::chat_template::ChatTemplate;
use crate::checkpoint::gguf::Gguf;
use crate::error::{Error, Result};

/// Largest vocabulary that is accepted, in tokens. The largest in use today has 262,144.
const MAX_VOCABULARY: usize = 1 << 20;

/// A tokenizer: `text → [position]` token ids and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    control: BTreeSet<u32>,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, and the names of the begin and end tokens from the `tokenizer_config.json` or
    /// `config.json` beside it.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Json`] when a file cannot be read, [`Error::Tokenizer`] when it describes a
    /// tokenizer that is damaged or is no byte-pair encoding.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        json::validate(&bytes).map_err(|error| match error {
            json::Invalid::Json(source) => Error::json(path)(source),
            json::Invalid::Content(source) => Error::Tokenizer(source),
        })?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(TokenizerError::library("load"))?;
        let ends = json::read_ends(path.parent().unwrap_or(Path::new(".")))?;
        let bos = ends.bos.and_then(|token| token.id(&inner));
        let eos = ends.eos.and_then(|token| token.id(&inner));
        Ok(Self::new(inner, bos, eos)?)
    }

    /// Reads the tokenizer of a model folder: `tokenizer.json` and its neighbours.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::from_file(&folder.join("tokenizer.json"))
    }

    /// Builds the tokenizer that the metadata `tokenizer.ggml.*` of a GGUF file describes.
    ///
    /// # Errors
    /// [`Error::Gguf`] when a field is missing or has the wrong type, [`Error::Tokenizer`] when the fields contradict
    /// each other or name something that is not supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        Ok(Self::from_vocabulary(&Vocabulary::read(gguf)?)?)
    }

    fn from_vocabulary(vocabulary: &Vocabulary<'_>) -> std::result::Result<Self, TokenizerError> {
        Self::new(vocabulary.build()?, vocabulary.bos, vocabulary.eos)
    }

    fn new(
        mut inner: tokenizers::Tokenizer,
        bos: Option<u32>,
        eos: Option<u32>,
    ) -> std::result::Result<Self, TokenizerError> {
        // A length limit or padding stored with the tokenizer belongs to whoever batches, not to the text.
        inner.with_truncation(None).map_err(TokenizerError::library("load"))?;
        inner.with_padding(None);
        let ids = inner.get_vocab(true);
        let vocab_size = ids.values().max().map_or(0, |&last| last as usize + 1);
        if vocab_size > MAX_VOCABULARY {
            return Err(TokenizerError::TooLarge {
                what: "vocabulary",
                found: vocab_size,
                limit: MAX_VOCABULARY,
            });
        }
        for (field, id) in [("bos_token", bos), ("eos_token", eos)] {
            if let Some(id) = id.filter(|&id| id as usize >= vocab_size) {
                return Err(TokenizerError::IdOutOfRange { field, id: id.into(), vocab_size });
            }
        }
        let added = inner.get_added_tokens_decoder();
        let control = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        Ok(Self { inner, control, vocab_size, bos, eos })
    }

    /// Token ids of `text`, where the names of special tokens (`<|im_end|>`) stand for these tokens: for text that
    /// comes from a [`ChatTemplate`]. No begin or end token is added; the template writes them.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when a pre-tokeniser's regular expression gives up on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(TokenizerError::library("encode"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` taken literally: never a special token, whatever the text says. Bytes that the vocabulary
    /// lacks (some control characters) are left out, as in Python.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when a pre-tokeniser's regular expression gives up on the text, or when a broken
    /// vocabulary leaves no other way to write it than with a special token.
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode_without_added_tokens(text).map_err(TokenizerError::library("encode"))?;
        match ids.iter().find(|id| self.control.contains(id)) {
            Some(&id) => {
                Err(TokenizerError::ControlInText { token: self.token(id).unwrap_or_default() }.into())
            }
            None => Ok(ids),
        }
    }

    fn encode_without_added_tokens(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normalized)?;
        }
        let mut pieces = PreTokenizedString::from(normalized);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// Text of `ids`. Ids outside of the vocabulary are left out; bytes that are no UTF-8 become `U+FFFD`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the decoder fails, which a byte-level decoder does not.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        Ok(self.inner.decode(ids, skip_special).map_err(TokenizerError::library("decode"))?)
    }

    /// The token with this id, in the vocabulary's own spelling (`Ġthe` for ` the`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token in the vocabulary's own spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether this id is a special token, such as the end of a turn.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.contains(&id)
    }

    /// One more than the largest token id. A model may have more rows of embeddings, never fewer.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text or a turn, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Writes `tokenizer.json` to `path`, atomically. The begin and end tokens are not in this file: see
    /// [`Tokenizer::save_folder`].
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = self.inner.to_string(false).map_err(TokenizerError::library("save"))?;
        atomic_write(path, |file| file.write_all(json.as_bytes()))
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a model folder, so that `transformers` and
    /// [`Tokenizer::from_folder`] find the same tokens and the same chat template there.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    pub fn save_folder(&self, folder: &Path, template: &ChatTemplate) -> Result<()> {
        let name = |id: Option<u32>| id.and_then(|id| self.token(id));
        let config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": name(self.bos),
            "eos_token": name(self.eos),
            "clean_up_tokenization_spaces": false,
            "chat_template": template.source(),
        });
        self.save(&folder.join("tokenizer.json"))?;
        let path = folder.join("tokenizer_config.json");
        atomic_write(&path, |file| Ok(serde_json::to_writer_pretty(file, &config)?))
    }
}

#[cfg(test)]
mod tests;
