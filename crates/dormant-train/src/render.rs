//! From a row to tokens and a loss mask. The only place where that happens.

use dormant_data::{Conversation, Sample};
use dormant_model::chat_template::ChatTemplate;
use dormant_model::tokenizer::Tokenizer;

use crate::error::{Error, Result};

/// A row as the model reads it. The loss covers the reply and the token that ends it, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Id of the row.
    pub id: String,
    /// Prompt, reply, end of turn.
    pub tokens: Vec<u32>,
    /// Number of tokens before the reply; these carry no loss.
    pub prompt: usize,
}

impl Rendered {
    /// Whether the token at `position` is trained.
    pub fn is_trained(&self, position: usize) -> bool {
        position >= self.prompt
    }

    /// Number of trained tokens.
    pub fn trained(&self) -> usize {
        self.tokens.len() - self.prompt
    }
}

/// Renders rows with a model's own template and tokenizer.
#[derive(Clone, Copy, Debug)]
pub struct Renderer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The model's chat template.
    pub template: &'a ChatTemplate,
}

impl Renderer<'_> {
    /// Tokens of a prompt, up to where the reply begins.
    ///
    /// # Errors
    /// If the template refuses the conversation.
    pub fn prompt(&self, prompt: &Conversation) -> Result<Vec<u32>> {
        let text = self.template.render(prompt.messages(), true)?;
        Ok(self.tokenizer.encode(&text)?)
    }

    /// Tokens of a reply, without its end. Text that looks like a control token stays text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn reply(&self, reply: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_ordinary(reply)?)
    }

    /// The token that ends a reply.
    ///
    /// # Errors
    /// [`Error::NoEndToken`].
    pub fn end(&self) -> Result<u32> {
        self.tokenizer.id("<|im_end|>").or_else(|| self.tokenizer.eos()).ok_or(Error::NoEndToken)
    }

    /// A whole row: prompt, reply, and the end of the reply unless it was cut (`ends` is false).
    ///
    /// # Errors
    /// As [`Renderer::prompt`], [`Renderer::reply`] and [`Renderer::end`].
    pub fn row(&self, sample: &Sample, ends: bool) -> Result<Rendered> {
        let mut tokens = self.prompt(&sample.prompt)?;
        let prompt = tokens.len();
        tokens.extend(self.reply(&sample.completion)?);
        if ends {
            tokens.push(self.end()?);
        }
        Ok(Rendered { id: sample.id.clone(), tokens, prompt })
    }
}
