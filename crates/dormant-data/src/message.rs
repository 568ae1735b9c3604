//! Conversations in TRL's `messages` shape.

use serde::{Deserialize, Serialize};

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Standing instructions, before the first turn.
    System,
    /// The person (or program) that asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn: `{"role": "user", "content": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// A list of messages; as JSON, TRL's `messages` list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conversation(Vec<Message>);

impl Conversation {
    /// A conversation of these messages, in order.
    pub fn new(messages: Vec<Message>) -> Self {
        Self(messages)
    }

    /// A conversation of a single user message.
    pub fn user(text: impl Into<String>) -> Self {
        Self(vec![Message::new(Role::User, text)])
    }

    /// The messages, in order.
    pub fn messages(&self) -> &[Message] {
        &self.0
    }

    /// Whether there are no messages.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content of the last user message.
    pub fn last_user(&self) -> Option<&str> {
        self.0.iter().rev().find(|m| m.role == Role::User).map(|m| m.content.as_str())
    }

    /// The content of the system message.
    pub fn system(&self) -> Option<&str> {
        self.0.iter().find(|m| m.role == Role::System).map(|m| m.content.as_str())
    }

    /// The same conversation with `text` as its system message, in place of any it had.
    #[must_use]
    pub fn with_system(&self, text: impl Into<String>) -> Self {
        let rest = self.0.iter().filter(|m| m.role != Role::System).cloned();
        Self(std::iter::once(Message::new(Role::System, text)).chain(rest).collect())
    }

    /// The same conversation with `text` as its last user message; appended when it has none.
    #[must_use]
    pub fn with_last_user(&self, text: impl Into<String>) -> Self {
        let mut messages = self.0.clone();
        match messages.iter_mut().rev().find(|m| m.role == Role::User) {
            Some(message) => message.content = text.into(),
            None => messages.push(Message::new(Role::User, text)),
        }
        Self(messages)
    }

    /// The same conversation followed by one more message.
    #[must_use]
    pub fn then(&self, role: Role, content: impl Into<String>) -> Self {
        let mut messages = self.0.clone();
        messages.push(Message::new(role, content));
        Self(messages)
    }

    /// The contents of all messages, joined by newlines: what a reader of the conversation sees.
    pub fn text(&self) -> String {
        let contents: Vec<&str> = self.0.iter().map(|m| m.content.as_str()).collect();
        contents.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_trl_messages() {
        let conversation = Conversation::user("Hi").with_system("Be kind").then(Role::Assistant, "Hello");
        let json = serde_json::to_string(&conversation).unwrap();
        assert_eq!(
            json,
            r#"[{"role":"system","content":"Be kind"},{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]"#
        );
        assert_eq!(serde_json::from_str::<Conversation>(&json).unwrap(), conversation);
    }

    #[test]
    fn with_system_replaces() {
        let conversation = Conversation::user("Hi").with_system("a").with_system("b");
        assert_eq!(conversation.messages().len(), 2);
        assert_eq!(conversation.system(), Some("b"));
    }

    #[test]
    fn last_user_is_the_last() {
        let conversation = Conversation::user("one").then(Role::Assistant, "x").then(Role::User, "two");
        assert_eq!(conversation.last_user(), Some("two"));
        assert_eq!(conversation.with_last_user("three").messages()[2].content, "three");
        assert_eq!(Conversation::default().with_last_user("first"), Conversation::user("first"));
    }
}
