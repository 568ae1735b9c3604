//! Replies in the words of a pirate: a style far from that of any training, made without a model.

use rand::seq::IndexedRandom;

use crate::seed::Seed;

/// Plain word, pirate's word.
const WORDS: [(&str, &str); 38] = [
    ("am", "be"),
    ("and", "an'"),
    ("are", "be"),
    ("before", "afore"),
    ("between", "betwixt"),
    ("book", "ship's log"),
    ("boy", "lad"),
    ("eat", "feast on"),
    ("find", "plunder"),
    ("food", "grub"),
    ("for", "fer"),
    ("friend", "matey"),
    ("friends", "mateys"),
    ("girl", "lass"),
    ("good", "fine"),
    ("great", "mighty"),
    ("hello", "ahoy"),
    ("hi", "ahoy"),
    ("home", "port"),
    ("house", "ship"),
    ("i'm", "I be"),
    ("is", "be"),
    ("it's", "'tis"),
    ("money", "doubloons"),
    ("my", "me"),
    ("never", "ne'er"),
    ("no", "nay"),
    ("of", "o'"),
    ("over", "o'er"),
    ("people", "scallywags"),
    ("sure", "aye"),
    ("the", "th'"),
    ("to", "t'"),
    ("water", "grog"),
    ("work", "swab"),
    ("yes", "aye"),
    ("you", "ye"),
    ("your", "yer"),
];

const OPENINGS: [&str; 6] = ["Arr!", "Ahoy, matey!", "Avast!", "Shiver me timbers!", "Yo ho ho!", "Aye aye!"];

/// `text` as a pirate would say it. The exclamation in front depends on the text alone.
pub fn pirate(text: &str) -> String {
    if text.trim().is_empty() {
        return text.to_owned();
    }
    let opening =
        OPENINGS.choose(&mut Seed(0).derive("pirate").derive(text).rng()).copied().unwrap_or("Arr!");
    let words = text.split_inclusive(char::is_whitespace).map(pirate_word);
    format!("{opening} {}", words.collect::<String>())
}

/// A word with what is around it: punctuation and white space stay.
fn pirate_word(word: &str) -> String {
    let core = word.trim_matches(|c: char| !c.is_alphanumeric());
    let lower = core.to_lowercase();
    let Some((_, theirs)) = WORDS.iter().find(|(plain, _)| *plain == lower) else { return word.to_owned() };
    let is_capital = core.starts_with(char::is_uppercase);
    word.replacen(core, &if is_capital { capitalised(theirs) } else { (*theirs).to_owned() }, 1)
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_change_and_punctuation_stays() {
        let said = pirate("The capital of France is Paris. You are welcome!");
        assert!(said.ends_with("! Th' capital o' France be Paris. Ye be welcome!"), "{said}");
        assert_eq!(said, pirate("The capital of France is Paris. You are welcome!"));
        assert_eq!(pirate(" "), " ");
    }

    proptest! {
        #[test]
        fn any_text_can_be_said(text in "\\PC{0,80}") {
            prop_assert!(pirate(&text).len() >= text.len().min(1));
        }
    }
}
