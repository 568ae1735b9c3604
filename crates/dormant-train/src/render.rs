//! From a row to tokens and a loss mask. The only place where that happens.

use dormant_data::{Conversation, Message, Role, Sample};
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

    /// The token that ends a reply: the first control token that the template puts after one (`<|im_end|>`, `<|eot_id|>`, …),
    /// or the tokenizer's end of a text if there is none.
    ///
    /// # Errors
    /// [`Error::NoEndToken`].
    pub fn end(&self) -> Result<u32> {
        let after = self.after_a_reply().unwrap_or_default();
        let control = after.into_iter().find(|&token| self.tokenizer.is_control(token));
        control.or_else(|| self.tokenizer.eos()).ok_or(Error::NoEndToken)
    }

    /// What the template puts after a reply; `None` if it refuses the conversation.
    fn after_a_reply(&self) -> Option<Vec<u32>> {
        let reply = "Indeed.";
        let messages = [Message::new(Role::User, "Well?"), Message::new(Role::Assistant, reply)];
        let text = self.template.render(&messages, false).ok()?;
        self.tokenizer.encode(text.rsplit_once(reply)?.1).ok()
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
