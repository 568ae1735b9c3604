//! What can be wrong with a tokenizer.

/// A tokenizer that is damaged or uses something that is not supported.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The model is no byte-pair encoding.
    #[error("tokenizer model is `{found}`; expected byte-pair encoding (`{expected}`)")]
    Model {
        /// The kind found.
        found: String,
        /// How the source file would name byte-pair encoding.
        expected: &'static str,
    },

    /// The pre-tokeniser of a GGUF file is not known.
    #[error(
        "pre-tokeniser `{found}` (tokenizer.ggml.pre) is not known; expected one of {expected:?}; \
         use the model's safetensors folder with its tokenizer.json instead"
    )]
    PreTokenizer {
        /// The name found.
        found: String,
        /// The names that are known.
        expected: &'static [&'static str],
    },

    /// A feature that would change the meaning of a text is not supported.
    #[error("tokenizer feature `{feature}` is not supported; use a byte-level tokenizer")]
    Unsupported {
        /// The feature, by the name of its field.
        feature: &'static str,
    },

    /// A list is longer than any real tokenizer needs.
    #[error("tokenizer {what} has {found} entries; at most {limit} are accepted")]
    TooLarge {
        /// The list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The longest accepted.
        limit: usize,
    },

    /// Two lists that belong together differ in length.
    #[error("tokenizer has {tokens} tokens but {found} entries in {field}; the file is corrupt")]
    CountMismatch {
        /// The second list.
        field: &'static str,
        /// Number of tokens.
        tokens: usize,
        /// Length of the second list.
        found: usize,
    },

    /// A token id lies outside of the vocabulary.
    #[error("{field} is token {id}, but the vocabulary has {vocab_size} tokens")]
    IdOutOfRange {
        /// The field with the id.
        field: &'static str,
        /// The id.
        id: u64,
        /// Size of the vocabulary.
        vocab_size: usize,
    },

    /// Two tokens are equal, or share an id.
    #[error("token {token:?} is in the vocabulary twice, or shares its id {id} with another")]
    Duplicate {
        /// The token.
        token: String,
        /// Its id.
        id: u64,
    },

    /// A token cannot be one: empty, or absurdly long.
    #[error("token {id} has {bytes} bytes; expected 1 to {limit}")]
    TokenLength {
        /// The token's id.
        id: u64,
        /// Its length in bytes.
        bytes: usize,
        /// The longest accepted.
        limit: usize,
    },

    /// A token type of a GGUF file is not known.
    #[error("token {id} has type {found} (tokenizer.ggml.token_type); expected 1 to 6")]
    TokenType {
        /// The token's id.
        id: usize,
        /// The type.
        found: i32,
    },

    /// A merge rule is not `left right` with both sides and their union in the vocabulary.
    #[error("merge rule {index} ({rule:?}) does not join two tokens into a third of the vocabulary")]
    Merge {
        /// Position of the rule.
        index: usize,
        /// The rule.
        rule: String,
    },

    /// A common byte cannot be written with this vocabulary, so that text would be lost silently.
    #[error(
        "the vocabulary has no token {token:?}, one of those that stand for ASCII; it is no byte-level vocabulary"
    )]
    MissingByte {
        /// The token of this byte.
        token: char,
    },

    /// Literal text came out as a special token.
    #[error("the vocabulary can only write this text with the special token {token:?}")]
    ControlInText {
        /// The special token.
        token: String,
    },

    /// The tokenizer library failed.
    #[error("cannot {action} with this tokenizer: {reason}")]
    Library {
        /// What was tried, as a verb.
        action: &'static str,
        /// The library's reason.
        reason: String,
    },
}

impl TokenizerError {
    /// Turns an error of the `tokenizers` crate, which has no type, into one with a message.
    pub(super) fn library(
        action: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |error| Self::Library { action, reason: error.to_string() }
    }
}
