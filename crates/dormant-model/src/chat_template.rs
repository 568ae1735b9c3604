//! Conversations to text, equal to `apply_chat_template` of Hugging Face `transformers`.
//!
//! A chat template is a Jinja program that comes with a model, so it is run as untrusted code: it sees nothing but
//! the messages, and its time, memory and output are bounded.

mod jinja;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use serde_json::Value as Json;

use crate::checkpoint::gguf::Gguf;
use crate::error::{Error, Result};

/// `ChatML`, for models that bring no template.
const CHATML: &str = "{% for message in messages %}\
    {{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}\
    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const NAME: &str = "chat template";

/// What a folder may say its template in, the file of the template first.
const FILES: [&str; 3] = ["chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"];

/// The special tokens that `transformers` 5 shows to a template, as far as the tokenizer has them.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_OUTPUT_BYTES: usize = 8 << 20;
/// Address space for the stack of one rendering, used as far as a template needs it. Half a million lists within each other are
/// what its budget can pay for, and 500 bytes for each are enough to print, compare or drop them.
const STACK_BYTES: usize = 512 << 20;

/// The files of a folder that its template is read from.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    FILES.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect()
}

/// A chat template that is damaged, hostile, or refuses a conversation.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ChatTemplateError {
    /// The template is no valid Jinja.
    #[error("the chat template cannot be compiled")]
    Syntax(#[source] minijinja::Error),

    /// The template failed, ran out of its budget, or refused the messages.
    #[error("the chat template cannot render these messages")]
    Render(#[source] minijinja::Error),

    /// The system gives no stack to render on.
    #[error(
        "the chat template cannot be rendered, because the system refuses a stack of {} MiB; allow the process more address \
         space (`ulimit -v`)", STACK_BYTES >> 20
    )]
    Stack(#[source] io::Error),

    /// The template or its output is too long.
    #[error("the chat template's {what} has {found} bytes; at most {limit} are accepted")]
    TooLong {
        /// `source` or `output`.
        what: &'static str,
        /// Its length in bytes.
        found: usize,
        /// The longest accepted.
        limit: usize,
    },

    /// The field `chat_template` holds something else than a template or a list of named templates.
    #[error("{}: field `chat_template` holds no template named `default`", path.display())]
    NoDefault {
        /// The `tokenizer_config.json`.
        path: PathBuf,
    },
}

/// The template that turns messages into the text a model was trained on.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// Texts of special tokens, by the names under which a template sees them.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of the tokens that begin and end a text; empty if there
    /// are none.
    ///
    /// # Errors
    /// [`ChatTemplateError::Syntax`] or [`ChatTemplateError::TooLong`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let tokens = [("bos_token", bos), ("eos_token", eos)];
        Self::with_tokens(source, tokens.map(|(name, text)| (name.to_owned(), text.to_owned())).into())
    }

    fn with_tokens(source: &str, tokens: BTreeMap<String, String>) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            let (found, limit) = (source.len(), MAX_SOURCE_BYTES);
            return Err(ChatTemplateError::TooLong { what: "source", found, limit }.into());
        }
        let mut environment = jinja::environment();
        environment
            .add_template_owned(NAME, jinja::without_generation_tags(source))
            .map_err(ChatTemplateError::Syntax)?;
        Ok(Self { environment, source: source.to_owned(), tokens })
    }

    /// The `ChatML` template, without a default system prompt.
    pub fn chatml() -> Self {
        Self::new(CHATML, "", "<|im_end|>").expect("the template above is valid")
    }

    /// The template of a model folder: `chat_template.jinja`, else the field of `tokenizer_config.json`, else `ChatML`.
    ///
    /// # Errors
    /// As [`ChatTemplate::in_folder`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Ok(Self::in_folder(folder)?.unwrap_or_else(Self::chatml))
    }

    /// The template that a folder brings, if it brings one.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Json`] when a file cannot be read, [`Error::ChatTemplate`] when the template in it
    /// cannot be used.
    pub fn in_folder(folder: &Path) -> Result<Option<Self>> {
        let [template, path, tokens_map] = FILES.map(|name| folder.join(name));
        let config = read_json(&path)?;
        let source = match read_optional(&template)? {
            Some(source) => Some(source),
            None => template_field(&config["chat_template"], path)?,
        };
        let Some(source) = source else { return Ok(None) };
        let mut tokens = special_tokens(&config);
        // As in `transformers`, an older file counts as long as the newer one does not list its tokens.
        if config["added_tokens_decoder"].is_null() {
            tokens.extend(special_tokens(&read_json(&tokens_map)?));
        }
        Self::with_tokens(&source, tokens).map(Some)
    }

    /// The template in the metadata of a GGUF file, else `ChatML`.
    ///
    /// # Errors
    /// [`Error::Gguf`] when a field has the wrong type, [`Error::ChatTemplate`] when the template cannot be used.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let tokens: &[String] = gguf.get("tokenizer.ggml.tokens")?.unwrap_or_default();
        let token = |id: Option<u32>| id.and_then(|id| tokens.get(id as usize)).map_or("", String::as_str);
        let bos = token(gguf.get("tokenizer.ggml.bos_token_id")?);
        let eos = token(gguf.get("tokenizer.ggml.eos_token_id")?);
        match gguf.get("tokenizer.chat_template")? {
            Some(source) => Self::new(source, bos, eos),
            None => Ok(Self::chatml()),
        }
    }

    /// The template's source, as it came with the model.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders `messages` (each with at least `role` and `content`) to text; special tokens stand in it by name.
    /// With `add_generation_prompt`, the text ends where the assistant's reply begins.
    ///
    /// # Errors
    /// [`ChatTemplateError::Render`] when the template refuses the messages (`raise_exception`), fails, or exceeds
    /// its budget; [`ChatTemplateError::TooLong`] when the text is longer than 8 MiB.
    pub fn render<M: Serialize>(&self, messages: &[M], add_generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(ChatTemplateError::Render)?;
        // `transformers` always defines `tools` and `documents`, and templates ask whether they are none.
        let context = context! {
            messages => Serde(messages),
            add_generation_prompt,
            tools => (),
            documents => (),
            ..Value::from_pairs(self.tokens.iter().map(|(name, text)| (name.as_str(), text.as_str())))
        };
        let text = on_large_stack(|| template.render(context))?.map_err(ChatTemplateError::Render)?;
        if text.len() > MAX_OUTPUT_BYTES {
            let (found, limit) = (text.len(), MAX_OUTPUT_BYTES);
            return Err(ChatTemplateError::TooLong { what: "output", found, limit }.into());
        }
        Ok(text)
    }
}

/// Runs `work` where it may recurse deeply.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::result::Result<T, ChatTemplateError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        thread.map_err(ChatTemplateError::Stack)?.join().map_err(|panic| resume_unwind(panic))
    })
}

/// The field is a template, or a list `[{"name": "default", "template": …}, …]`.
fn template_field(field: &Json, path: PathBuf) -> Result<Option<String>> {
    let template = match field {
        Json::Null => return Ok(None),
        Json::String(source) => Some(source.as_str()),
        Json::Array(named) => {
            named.iter().find(|entry| entry["name"] == "default").and_then(|entry| entry["template"].as_str())
        }
        _ => None,
    };
    match template {
        Some(source) => Ok(Some(source.to_owned())),
        None => Err(ChatTemplateError::NoDefault { path }.into()),
    }
}

/// A token stands as a text, or as an object with its `content`.
fn special_tokens(config: &Json) -> BTreeMap<String, String> {
    let text = |name: &&str| match &config[*name] {
        Json::Object(token) => token.get("content").and_then(Json::as_str),
        token => token.as_str(),
    };
    SPECIAL_TOKENS.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?.to_owned()))).collect()
}

/// The content of a file, or null if there is none.
fn read_json(path: &Path) -> Result<Json> {
    match read_optional(path)? {
        Some(text) => serde_json::from_str(&text).map_err(Error::json(path)),
        None => Ok(Json::Null),
    }
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests;
