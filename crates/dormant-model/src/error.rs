//! What can go wrong between a file and a running model.

use std::io;
use std::path::{Path, PathBuf};

use crate::adapter_files::AdapterError;
use crate::chat_template::ChatTemplateError;
use crate::checkpoint::gguf::GgufError;
use crate::config::ConfigError;
use crate::source::SourceError;
use crate::tokenizer::TokenizerError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of this crate. Each names the file, field or tensor at fault.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A JSON file does not have the expected form.
    #[error("{} is not the JSON expected here", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },

    /// A model configuration that did not come from a file cannot be used.
    #[error("the model configuration cannot be used")]
    Config(#[from] ConfigError),

    /// A model file or folder describes a model that cannot be used.
    #[error("{}: the model configuration cannot be used", path.display())]
    ConfigFile {
        /// `config.json` or the GGUF file.
        path: PathBuf,
        /// The field at fault.
        source: ConfigError,
    },

    /// A token id that the vocabulary does not have.
    #[error("token {token} is outside the vocabulary of {vocabulary}; was it made by another tokenizer?")]
    TokenOutOfVocabulary {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },

    /// A sequence is longer than the model's context.
    #[error("a sequence of {length} tokens exceeds the model's context of {limit}; shorten it")]
    SequenceTooLong {
        /// Tokens of the sequence.
        length: usize,
        /// Longest possible.
        limit: usize,
    },

    /// An adapter changes a module that the model does not have.
    #[error("the adapter changes `{module}`, which the model does not have; it was made for another model")]
    AdapterModule {
        /// The module.
        module: String,
    },

    /// A weight that an adapter was saved with does not fit the model.
    #[error(
        "the adapter's `{tensor}` has shape {found:?}, the model's is {expected:?}; it was made for another model, or \
         with tokens that the model does not have"
    )]
    AdapterSavedShape {
        /// The tensor.
        tensor: String,
        /// Its shape in the adapter.
        found: Vec<usize>,
        /// Its shape in the model.
        expected: Vec<usize>,
    },

    /// An adapter has two different weights for what the model has one for.
    #[error(
        "the adapter's `model.embed_tokens.base_layer.weight` and `lm_head.base_layer.weight` differ, but in the model the \
         two are one, so that PEFT loads one over the other; load the adapter with PEFT and save it again"
    )]
    AdapterTied,

    /// An adapter that is more than factors of linear layers is to be trained on, changed or written.
    #[error(
        "the adapter has {what} at `{module}`, and can only be merged: merge it into its model with PEFT and use the \
         merged model"
    )]
    AdapterMergesOnly {
        /// The module or weight.
        module: String,
        /// What is there.
        what: &'static str,
    },

    /// An adapter does not fit the weights of a module.
    #[error(
        "the adapter of `{module}` is for a weight of shape {found:?}, the model's is {expected:?}; \
         it was made for another model"
    )]
    AdapterShape {
        /// The module.
        module: String,
        /// Output and input of the adapter.
        found: [usize; 2],
        /// Output and input of the model.
        expected: [usize; 2],
    },

    /// A prompt without a token cannot be continued.
    #[error("a prompt has no tokens; give it at least one")]
    EmptyPrompt,

    /// The caller ended the work.
    #[error("interrupted")]
    Interrupted,

    /// A GGUF file is damaged, or uses something that is not supported.
    #[error("{} cannot be read as GGUF", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The field or tensor at fault.
        source: GgufError,
    },

    /// The header of a safetensors file is damaged.
    #[error("{} has no valid safetensors header", path.display())]
    SafetensorsHeader {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },

    /// A safetensors file does not have the length that its header implies.
    #[error(
        "{} is {found} bytes long, but its header needs {expected}; \
         the file is truncated or corrupt: copy or download it again", path.display()
    )]
    SafetensorsLength {
        /// The file.
        path: PathBuf,
        /// Bytes that header and tensors take.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },

    /// A safetensors header is longer than the format allows or than the file.
    #[error(
        "{} announces a header of {length} bytes, but at most {limit} are possible; \
         this is not a safetensors file, or it is corrupt", path.display()
    )]
    SafetensorsHeaderLength {
        /// The file.
        path: PathBuf,
        /// Announced length in bytes.
        length: u64,
        /// Longest possible length in bytes.
        limit: u64,
    },

    /// A tensor has an element type that is not read.
    #[error("{}: tensor `{tensor}` has type {found}; expected one of {expected}", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// The types that are read.
        expected: &'static str,
    },

    /// A tensor has another shape than the model needs.
    #[error("{}: tensor `{tensor}` has shape {found:?}; expected {expected:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },

    /// A tensor that the model needs is not there.
    #[error("{}: tensor `{tensor}` is missing", path.display())]
    TensorMissing {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor, by its Hugging Face name.
        tensor: String,
    },

    /// A checkpoint has two different weights for what its configuration says is one.
    #[error(
        "{}: `lm_head.weight` is not `model.embed_tokens.weight`, although `tie_word_embeddings` is true: versions of \
         `transformers` differ in which one they use; set `tie_word_embeddings` to false in `config.json`, or take \
         `lm_head.weight` out", path.display()
    )]
    HeadNotTied {
        /// The checkpoint.
        path: PathBuf,
    },

    /// The number of values given for a tensor differs from what its shape says.
    #[error("tensor `{tensor}` of shape {shape:?} was given {values} values")]
    TensorLength {
        /// The tensor.
        tensor: String,
        /// The shape given.
        shape: Vec<usize>,
        /// The number of values given.
        values: usize,
    },

    /// Two tensors of one file have the same name.
    #[error("{}: tensor `{tensor}` is there twice", path.display())]
    TensorDuplicate {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A folder holds no weights, or several candidates.
    #[error(
        "{} holds {found} weight files; expected `model.safetensors`, \
         `model.safetensors.index.json` or a single `*.safetensors`", path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// Number of `*.safetensors` files found.
        found: usize,
    },

    /// Weights that only running code could read.
    #[error(
        "{} is a pickle: to read it is to run code that may be in it, so it is not read; load it with PyTorch where that \
         does no harm, and save it as safetensors (`save_pretrained` does)", path.display()
    )]
    Pickled {
        /// The file.
        path: PathBuf,
    },

    /// The path is neither a model folder nor a GGUF file.
    #[error("{} is not a model; expected a folder with `config.json` or a `.gguf` file", path.display())]
    NotAModel {
        /// The path given.
        path: PathBuf,
    },

    /// A sharded checkpoint names a shard outside of its folder.
    #[error("{}: shard `{shard}` is not a plain file name; the index is not to be trusted", path.display())]
    ShardOutsideFolder {
        /// The index.
        path: PathBuf,
        /// The name given.
        shard: String,
    },

    /// A sharded checkpoint names a shard that is not there.
    #[error("{}: shard `{shard}` is missing; copy or download it into the same folder", path.display())]
    ShardMissing {
        /// The index.
        path: PathBuf,
        /// The shard.
        shard: String,
    },

    /// The index of a sharded checkpoint places a tensor in a shard that lacks it.
    #[error("{}: tensor `{tensor}` is not in shard `{shard}`", path.display())]
    ShardLacksTensor {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },

    /// A shard holds a tensor that the index places elsewhere or nowhere. `transformers` loads all tensors of all shards.
    #[error(
        "{}: shard `{shard}` holds tensor `{tensor}`, which the index does not place there; which of its values counts \
         depends on the program: load the model with `transformers` and save it again, if you trust it", path.display()
    )]
    ShardUnlistedTensor {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },

    /// A tokenizer is damaged, or uses something that is not supported.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),

    /// A chat template is damaged, hostile, or refuses a conversation.
    #[error(transparent)]
    ChatTemplate(#[from] ChatTemplateError),

    /// An adapter is damaged, or uses something that is not supported.
    #[error(transparent)]
    Adapter(#[from] AdapterError),

    /// A model's files cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl Error {
    /// Turns an operating system error into [`Error::Io`]: `File::open(path).map_err(Error::io("open", path))`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Turns a JSON error into [`Error::Json`].
    pub fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Json { path, source }
    }
}
