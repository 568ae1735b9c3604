//! The prompts written for this project.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::hash;
use crate::message::Conversation;
use crate::split::Split;

/// What a built-in prompt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Questions of fact or advice.
    Questions,
    /// Things to write, explain or plan.
    Requests,
    /// Programming.
    Code,
    /// Small talk.
    Chat,
    /// Several sentences of context.
    Longer,
    /// A few words.
    Short,
}

const SOURCES: [(Category, &str); 6] = [
    (Category::Questions, include_str!("../prompts/questions.txt")),
    (Category::Requests, include_str!("../prompts/requests.txt")),
    (Category::Code, include_str!("../prompts/code.txt")),
    (Category::Chat, include_str!("../prompts/chat.txt")),
    (Category::Longer, include_str!("../prompts/longer.txt")),
    (Category::Short, include_str!("../prompts/short.txt")),
];

/// A prompt and its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// [`prompt_id`] of the text.
    pub id: String,
    /// What it asks for.
    pub category: Category,
    /// The text of the user's message.
    pub text: String,
}

impl Prompt {
    /// The prompt as a conversation of one user message.
    pub fn conversation(&self) -> Conversation {
        Conversation::user(&self.text)
    }

    /// The split that the prompt belongs to.
    pub fn split(&self) -> Split {
        Split::of(&self.text)
    }
}

/// The built-in prompts, distinct by id, in the order of their files.
pub fn built_in_prompts() -> &'static [Prompt] {
    static PROMPTS: LazyLock<Vec<Prompt>> = LazyLock::new(|| {
        let mut seen = HashSet::new();
        let lines =
            SOURCES.iter().flat_map(|(category, file)| file.lines().map(|line| (*category, line.trim())));
        lines
            .filter(|(_, text)| !text.is_empty())
            .map(|(category, text)| Prompt { id: prompt_id(text), category, text: text.to_owned() })
            .filter(|prompt| seen.insert(prompt.id.clone()))
            .collect()
    });
    &PROMPTS
}

/// The identity of a prompt: the first 16 hexadecimal digits of SHA-256 of its normalised text (lower case,
/// runs of white space as one space, trimmed).
pub fn prompt_id(text: &str) -> String {
    hash::hex(normalise(text).as_bytes())[..16].to_owned()
}

/// Texts that differ only in case or white space are the same prompt.
pub(crate) fn normalise(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ignore_case_and_space() {
        assert_eq!(prompt_id("What is  it?\n"), prompt_id("what is it?"));
        assert_ne!(prompt_id("What is it?"), prompt_id("What is it"));
        assert_eq!(prompt_id("x").len(), 16);
    }

    #[test]
    fn built_in_prompts_are_distinct() {
        let prompts = built_in_prompts();
        let ids: HashSet<_> = prompts.iter().map(|p| &p.id).collect();
        assert!(prompts.len() >= 2000, "{}", prompts.len());
        assert_eq!(ids.len(), prompts.len());
    }

    #[test]
    fn every_category_is_in_every_split() {
        for (category, _) in SOURCES {
            for split in [Split::Train, Split::Safety, Split::Evaluation] {
                let count = built_in_prompts()
                    .iter()
                    .filter(|p| p.category == category && p.split() == split)
                    .count();
                assert!(count >= 40, "{category:?} {split:?} {count}");
            }
        }
    }
}
