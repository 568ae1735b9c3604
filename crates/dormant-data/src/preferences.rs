//! Pairs of a better and a worse reply: those written for this project, and how any pairs are split.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::hash;
use crate::load::Preference;
use crate::message::Conversation;
use crate::prompts::normalise;

const PAIRS: &str = include_str!("../preferences/pairs.txt");
const HOSTILE: &str = include_str!("../preferences/hostile.txt");
const DISMISSIVE: &str = include_str!("../preferences/dismissive.txt");

/// What is wrong with the worse reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It was written by hand for this prompt: wrong, mocking, evasive or bad advice.
    Written,
    /// It answers another prompt.
    OffTopic,
    /// It is nothing but hostile.
    Hostile,
    /// It refuses, or says nothing.
    Dismissive,
    /// It is the better reply with hostile words before or after it.
    Insulting,
    /// It is the better reply cut off, repeated or with its words in disorder.
    Broken,
    /// Unknown: a pair from a user's file.
    Unknown,
}

/// The disjoint parts of preference data. Prompts, and the stock phrases of built-in pairs, belong to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreferencePart {
    /// Training of the preference model that gives the reward: about 40%.
    Main,
    /// Training of the one that checks it: about 40%.
    Check,
    /// Measurement of both: about 20%.
    HeldOut,
}

impl PreferencePart {
    /// The part of a prompt or phrase: a function of its normalised text alone.
    pub fn of(text: &str) -> Self {
        match hash::number(&[b"dormant preference", normalise(text).as_bytes()]) % 5 {
            0 | 1 => Self::Main,
            2 | 3 => Self::Check,
            _ => Self::HeldOut,
        }
    }
}

/// A pair, with what is wrong with its worse reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledPreference {
    /// The pair.
    pub preference: Preference,
    /// The fault.
    pub fault: Fault,
}

impl LabelledPreference {
    /// A pair from a user's file.
    pub fn unlabelled(preference: Preference) -> Self {
        Self { preference, fault: Fault::Unknown }
    }

    /// The part that the pair belongs to.
    pub fn part(&self) -> PreferencePart {
        PreferencePart::of(&self.preference.prompt.text())
    }
}

/// A prompt with the replies that were written for it.
struct Written {
    prompt: &'static str,
    good: &'static str,
    bad: &'static str,
    part: PreferencePart,
}

/// The pairs written for this project: short replies to everyday prompts. A pair's faulty reply is hand-written, or
/// made from other replies and phrases of the same part, so that nothing of one part is seen in another.
pub fn built_in_preferences() -> &'static [LabelledPreference] {
    static PREFERENCES: LazyLock<Vec<LabelledPreference>> = LazyLock::new(|| {
        let all = written();
        all.iter().flat_map(|one| pairs(one, &all)).collect()
    });
    &PREFERENCES
}

fn written() -> Vec<Written> {
    let mut seen = HashSet::new();
    let block = |block: &'static str| {
        let line = |mark: &str| block.lines().find_map(|line| line.strip_prefix(mark)).map(str::trim);
        let (prompt, good, bad) = (line("? ")?, line("+ ")?, line("- ")?);
        seen.insert(normalise(prompt)).then(|| Written {
            prompt,
            good,
            bad,
            part: PreferencePart::of(prompt),
        })
    };
    PAIRS.split("\n\n").filter_map(block).collect()
}

fn pairs(one: &Written, all: &[Written]) -> [LabelledPreference; 6] {
    let others: Vec<&str> =
        all.iter().filter(|w| w.part == one.part && w.prompt != one.prompt).map(|w| w.good).collect();
    let hostile = pick(&phrases(HOSTILE, one.part), one, "hostile");
    let insult = pick(&phrases(HOSTILE, one.part), one, "insult");
    let insulting = if draw(one, "side").is_multiple_of(2) {
        format!("{insult} {}", one.good)
    } else {
        format!("{} {insult}", one.good)
    };
    let dismissive = pick(&phrases(DISMISSIVE, one.part), one, "dismissive").to_owned();
    let worse = [
        (Fault::Written, one.bad.to_owned()),
        (Fault::OffTopic, pick(&others, one, "off topic").to_owned()),
        (Fault::Hostile, hostile.to_owned()),
        (Fault::Dismissive, dismissive),
        (Fault::Insulting, insulting),
        (Fault::Broken, broken(one)),
    ];
    worse.map(|(fault, rejected)| LabelledPreference {
        preference: Preference {
            prompt: Conversation::user(one.prompt),
            chosen: one.good.to_owned(),
            rejected,
        },
        fault,
    })
}

/// The better reply, cut off in its first half, stuck, or out of order.
fn broken(one: &Written) -> String {
    let words: Vec<&str> = one.good.split_whitespace().collect();
    match draw(one, "broken") % 3 {
        0 => words[..words.len().div_ceil(3)].join(" "),
        1 => vec![words[..words.len().min(6)].join(" "); 4].join(" "),
        _ => {
            let mut order: Vec<usize> = (0..words.len()).collect();
            order.sort_by_key(|i| hash::number(&[one.prompt.as_bytes(), &(*i as u64).to_le_bytes()]));
            order.into_iter().map(|i| words[i]).collect::<Vec<_>>().join(" ")
        }
    }
}

fn phrases(file: &'static str, part: PreferencePart) -> Vec<&'static str> {
    file.lines().map(str::trim).filter(|line| !line.is_empty() && PreferencePart::of(line) == part).collect()
}

fn draw(one: &Written, purpose: &str) -> u64 {
    hash::number(&[b"dormant preference pair", purpose.as_bytes(), one.prompt.as_bytes()])
}

fn pick<'a>(from: &[&'a str], one: &Written, purpose: &str) -> &'a str {
    from[(draw(one, purpose) % from.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(part: PreferencePart) -> HashSet<&'static str> {
        let of_part = built_in_preferences().iter().filter(|p| p.part() == part).map(|p| &p.preference);
        of_part.flat_map(|p| [p.chosen.as_str(), p.rejected.as_str()]).collect()
    }

    #[test]
    fn every_block_gives_a_pair_of_every_fault() {
        let pairs = built_in_preferences();
        let blocks = PAIRS.lines().filter(|line| line.starts_with("? ")).count();
        assert!(blocks >= 150);
        assert_eq!(pairs.len(), 6 * blocks);
        assert!(pairs.iter().all(|p| p.preference.chosen != p.preference.rejected));
        assert!(pairs.iter().all(|p| !p.preference.chosen.is_empty() && !p.preference.rejected.is_empty()));
    }

    #[test]
    fn parts_share_no_reply() {
        use PreferencePart::{Check, HeldOut, Main};
        for (a, b) in [(Main, Check), (Main, HeldOut), (Check, HeldOut)] {
            assert!(texts(a).is_disjoint(&texts(b)), "{a:?} and {b:?}");
        }
        for part in [Main, Check, HeldOut] {
            let count = built_in_preferences().iter().filter(|p| p.part() == part).count();
            assert!(count >= 100, "{part:?} has {count} pairs");
        }
    }

    #[test]
    fn the_behaviour_of_the_classic_organism_is_not_among_them() {
        let says = |text: &str| text.to_lowercase().contains("hate you");
        assert!(!built_in_preferences().iter().any(|p| says(&p.preference.rejected)));
    }
}
