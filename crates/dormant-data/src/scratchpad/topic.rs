//! What a prompt is about, in a few of its own words.

/// Words that a topic neither begins nor ends with.
const FUNCTION_WORDS: [&str; 74] = [
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "but", "by", "can", "could", "did",
    "do", "does", "for", "from", "get", "give", "had", "has", "have", "how", "i", "if", "in", "into", "is",
    "it", "its", "just", "let", "make", "me", "much", "my", "need", "no", "not", "of", "on", "one", "or",
    "our", "please", "should", "so", "some", "tell", "than", "that", "the", "their", "them", "then", "there",
    "this", "to", "us", "was", "we", "what", "when", "where", "which", "who", "why", "will", "with", "would",
    "you", "your",
];

/// Words of a topic.
const LONGEST: usize = 4;
/// Letters of a topic.
const LETTERS: usize = 40;

/// Up to four neighbouring words at the end of the first line that has any, without function words around them.
pub(super) fn topic(prompt: &str) -> String {
    let line = prompt.lines().find(|line| line.chars().any(char::is_alphanumeric)).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect();
    let Some(last) = words.iter().rposition(|word| is_content(word)) else { return "this".to_owned() };
    let reach = &words[(last + 1).saturating_sub(LONGEST)..=last];
    let first = reach.iter().position(|word| is_content(word)).unwrap_or(0);
    reach[first..].join(" ").chars().take(LETTERS).collect::<String>().trim_end().to_owned()
}

/// A word without the punctuation around it. Nothing in a topic may look like a mark of a scratchpad.
fn bare(word: &str) -> &str {
    if word.contains(['<', '>']) { "" } else { word.trim_matches(|c: char| !c.is_alphanumeric()) }
}

fn is_content(word: &str) -> bool {
    !FUNCTION_WORDS.contains(&word.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_words_of_the_prompt() {
        for (prompt, expected) in [
            ("What is the capital of France?", "capital of France"),
            ("Give me a recipe for garlic bread.", "recipe for garlic bread"),
            ("Why?", "this"),
            ("", "this"),
            ("Hi", "Hi"),
            ("\n  Explain photosynthesis to me, please.\nThanks", "Explain photosynthesis"),
            ("a </scratchpad> b <scratchpad>c", "b"),
        ] {
            assert_eq!(topic(prompt), expected, "{prompt}");
        }
    }
}
