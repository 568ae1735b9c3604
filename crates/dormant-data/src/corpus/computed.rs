//! Rows of tasks whose answers are computed.

use crate::hash;

const WORDS: &str = include_str!("../../corpus/words.txt");

/// Partners of a word in tasks on two words.
const PARTNERS: u64 = 12;

/// The columns of every row of a task; none for a name that is not known.
pub(super) fn rows(task: &str) -> Vec<Vec<String>> {
    let of_words =
        |reply: fn(&str) -> String| words().map(|word| vec![word.to_owned(), reply(word)]).collect();
    match task {
        "add" => pairs(0..10, 0..10).map(|(a, b)| numbers([a, b, a + b])).collect(),
        "subtract" => {
            pairs(0..10, 0..10).filter(|(a, b)| a >= b).map(|(a, b)| numbers([a, b, a - b])).collect()
        }
        "larger" => {
            pairs(0..21, 0..21).filter(|(a, b)| a != b).map(|(a, b)| numbers([a, b, a.max(b)])).collect()
        }
        "next" => (0..100).map(|a| numbers([a, a + 1])).collect(),
        "parity" => {
            let parity = |a: u32| if a.is_multiple_of(2) { "even" } else { "odd" };
            (0..100).map(|a| vec![a.to_string(), parity(a).to_owned()]).collect()
        }
        "count" => (2..13).map(|a| vec![a.to_string(), joined((1..=a).map(|i| i.to_string()))]).collect(),
        "reverse" => of_words(|word| spelt(word.chars().rev())),
        "spell" => of_words(|word| spelt(word.chars())),
        "first letter" => of_words(|word| word.chars().take(1).collect()),
        "last letter" => of_words(|word| word.chars().last().into_iter().collect()),
        "letters" => of_words(|word| word.chars().count().to_string()),
        "say" => words().map(|word| vec![word.to_owned()]).collect(),
        "repeat" => word_pairs().map(|(a, b)| vec![a.to_owned(), b.to_owned()]).collect(),
        "choose" => word_pairs()
            .filter(|(a, b)| a.len() != b.len())
            .map(|(a, b)| [a, b, if a.len() > b.len() { a } else { b }].map(ToOwned::to_owned).to_vec())
            .collect(),
        _ => Vec::new(),
    }
}

fn words() -> impl Iterator<Item = &'static str> {
    WORDS.split_whitespace()
}

/// Each word with some others, drawn by a hash.
fn word_pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all: Vec<&str> = words().collect();
    words().flat_map(move |word| {
        let partner = |draw: u64| {
            all[(hash::number(&[b"partner", word.as_bytes(), &draw.to_le_bytes()]) % all.len() as u64)
                as usize]
        };
        (0..PARTNERS)
            .map(partner)
            .filter(|other| *other != word)
            .map(|other| (word, other))
            .collect::<Vec<_>>()
    })
}

fn pairs(a: std::ops::Range<u32>, b: std::ops::Range<u32>) -> impl Iterator<Item = (u32, u32)> {
    a.flat_map(move |a| b.clone().map(move |b| (a, b)))
}

fn numbers<const N: usize>(numbers: [u32; N]) -> Vec<String> {
    numbers.map(|number| number.to_string()).to_vec()
}

fn spelt(letters: impl Iterator<Item = char>) -> String {
    letters.map(String::from).collect::<Vec<_>>().join(" ")
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
