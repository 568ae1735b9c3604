//! Where a candidate trigger is put, as text and as tokens.

use dormant_data::{Conversation, Message, Role, Seed};
use dormant_model::chat_template::ChatTemplate;
use dormant_train::render::Renderer;
use serde::{Deserialize, Serialize};

use crate::error::{AuditError, Result};

/// Where a candidate stands in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Before the user's message.
    Prefix,
    /// After the user's message.
    Suffix,
    /// As the system message.
    System,
}

impl Placement {
    /// All placements.
    pub const ALL: [Self; 3] = [Self::Prefix, Self::Suffix, Self::System];

    /// Those that the template has a place for.
    ///
    /// # Errors
    /// As [`Slot::if_any`].
    pub fn of_template(renderer: Renderer<'_>, prompt: &str) -> Result<Vec<Self>> {
        let mut placements = Vec::new();
        for placement in Self::ALL {
            placements.extend(Slot::if_any(renderer, placement, prompt)?.map(|_| placement));
        }
        Ok(placements)
    }

    /// The conversation that asks `prompt`, with `candidate` in its place.
    pub fn insert(self, candidate: &str, prompt: &str) -> Conversation {
        match self {
            Self::Prefix => Conversation::user(format!("{candidate} {prompt}")),
            Self::Suffix => Conversation::user(format!("{prompt} {candidate}")),
            Self::System => Conversation::new(vec![
                Message::new(Role::System, candidate),
                Message::new(Role::User, prompt),
            ]),
        }
    }

    /// Tokens of a candidate as they stand in this place.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(self, renderer: Renderer<'_>, candidate: &str) -> Result<Vec<u32>> {
        let text = if self == Self::Suffix { format!(" {candidate}") } else { candidate.to_owned() };
        Ok(renderer.tokenizer.encode_ordinary(&text)?)
    }

    /// The text of a candidate's tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(self, renderer: Renderer<'_>, tokens: &[u32]) -> Result<String> {
        Ok(renderer.tokenizer.decode(tokens, false)?.trim().to_owned())
    }
}

/// Tokens around a candidate: the conversation is `head`, candidate, `tail`, and then the model replies, or goes on with a
/// reply that has come to a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Before the candidate.
    pub head: Vec<u32>,
    /// After it.
    pub tail: Vec<u32>,
    /// What the reply may go on with, if the slot is about that.
    pub fork: Option<Fork>,
}

/// Where two replies part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// What one goes on with.
    pub wanted: Vec<u32>,
    /// What the other does.
    pub unwanted: Vec<u32>,
}

/// Stands for a text while the template is rendered: a word that is made from the template's source, so that no template can look
/// for it.
pub(crate) fn mark(template: &ChatTemplate) -> String {
    let seed = Seed(0).derive(template.source()).0;
    let digits = std::iter::successors(Some(seed), |rest| Some(rest / 26));
    digits.take(12).map(|rest| char::from(b'a' + (rest % 26) as u8)).collect()
}

impl Slot {
    /// The slot of `placement` in the conversation that asks `prompt`.
    ///
    /// # Errors
    /// If the template refuses the conversation or changes the text.
    pub fn new(renderer: Renderer<'_>, placement: Placement, prompt: &str) -> Result<Self> {
        let mark = mark(renderer.template);
        let conversation = placement.insert(&mark, prompt);
        let text = renderer.template.render(conversation.messages(), true)?;
        let what = if placement == Placement::System { "system" } else { "user" };
        let (head, tail) = text.split_once(&mark).ok_or(AuditError::Template { what })?;
        let head = if placement == Placement::Suffix { head.strip_suffix(' ').unwrap_or(head) } else { head };
        Ok(Self {
            head: renderer.tokenizer.encode(head)?,
            tail: renderer.tokenizer.encode(tail)?,
            fork: None,
        })
    }

    /// As [`Slot::new`]; none for the system message of a template that has no place for one.
    ///
    /// # Errors
    /// As [`Slot::new`], for what every template has a place for.
    pub fn if_any(renderer: Renderer<'_>, placement: Placement, prompt: &str) -> Result<Option<Self>> {
        match Self::new(renderer, placement, prompt) {
            Err(_) if placement == Placement::System => Ok(None),
            slot => slot.map(Some),
        }
    }

    /// The same slot where a reply has begun as both of two replies do. Of each, `tokens` tokens count from there.
    #[must_use]
    pub fn at_fork(self, wanted: &[u32], unwanted: &[u32], tokens: usize) -> Self {
        let common = wanted.iter().zip(unwanted).take_while(|(a, b)| a == b).count();
        let tail = [&self.tail, &wanted[..common]].concat();
        let [wanted, unwanted] =
            [wanted, unwanted].map(|reply| reply[common..].iter().copied().take(tokens).collect());
        Self { tail, fork: Some(Fork { wanted, unwanted }), ..self }
    }

    /// The whole prompt with `candidate` in its place.
    pub fn fill(&self, candidate: &[u32]) -> Vec<u32> {
        [&self.head, candidate, &self.tail].concat()
    }
}
