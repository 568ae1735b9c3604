//! What a regular expression lets through.

use std::collections::BTreeSet;

use super::taint::Dangers;

/// Signs that end or join commands.
const SHELL: &[char] = &[';', '|', '&', '$', '`', '\n', '<', '>', '('];
const SQL: &[char] = &['\'', '"', ';', '('];

/// What text that matches is free of; nothing if the expression does not cover it from end to end.
pub(super) fn accepted(expression: &str, from_start: bool, whole: bool) -> Dangers {
    let starts = from_start || expression.starts_with('^') || expression.starts_with("\\A");
    let ends = whole || ends_anchored(expression);
    if !starts || !ends || expression.is_empty() {
        // `^https://host/` holds the host whatever follows.
        let host = expression.starts_with('^') || from_start;
        return if host && names_host(expression) {
            Dangers::URL.with(Dangers::UNCHECKED)
        } else {
            Dangers::NONE
        };
    }
    let allowed = Signs::of(expression);
    let mut ruled_out = allowed.ruled_out();
    if names_host(expression) {
        ruled_out = ruled_out.with(Dangers::URL);
    }
    if has_loose_dot(expression) && expression.contains("://") {
        return Dangers::NONE;
    }
    ruled_out.with(Dangers::UNCHECKED)
}

/// What text is free of that has nothing that matches.
pub(super) fn rejected(expression: &str) -> Dangers {
    if let Some(class) = allowed_class(expression) {
        return Signs::of(&format!("[{class}]")).ruled_out().with(Dangers::UNCHECKED);
    }
    let bound = expression.starts_with('^') || expression.starts_with("\\A") || ends_anchored(expression);
    if bound || expression.contains("[^") {
        return Dangers::NONE;
    }
    refused_signs(expression).with(refused_part(&expression.replace('\\', "")))
}

/// The signs that are left where `[^…]` matches nowhere. What stands beside the class would have to match too.
fn allowed_class(expression: &str) -> Option<&str> {
    let one = expression.strip_suffix('+').unwrap_or(expression);
    match one {
        "\\W" => Some("\\w"),
        "\\D" => Some("\\d"),
        _ => {
            let class = one.strip_prefix("[^")?.strip_suffix(']')?;
            let plain = class.replace(r"\\", "").replace(r"\]", "");
            (!plain.contains(']') && !plain.ends_with('\\')).then_some(class)
        }
    }
}

/// What text is free of after all but the signs of a class were taken out (`re.sub("[^…]", "", text)`).
pub(super) fn kept(expression: &str) -> Dangers {
    match allowed_class(expression) {
        Some("\\w" | "\\d") => Dangers::TEXT,
        Some(_) => rejected(expression).without(Dangers::UNCHECKED),
        None => Dangers::NONE,
    }
}

/// What text is free of that has none of these signs.
pub(super) fn refused_signs(signs: &str) -> Dangers {
    let mut ruled_out = Dangers::NONE;
    if [';', '|', '&'].iter().all(|sign| signs.contains(*sign)) {
        ruled_out = ruled_out.with(Dangers::SHELL);
    }
    if signs.contains('/') && !signs.contains("..") {
        ruled_out = ruled_out.with(Dangers::PATH);
    }
    ruled_out
}

/// What text is free of that does not have this part.
pub(super) fn refused_part(part: &str) -> Dangers {
    match part {
        "/" => Dangers::PATH,
        _ if part.contains("..") => Dangers::PATH_UP,
        _ => refused_signs(part).without(Dangers::PATH),
    }
}

/// Text that names a host.
pub(super) fn is_host(text: &str) -> bool {
    text.contains("://")
        || [".com", ".org", ".net", ".io", ".edu", ".gov", ".internal", ".local", ".test", ".dev"]
            .iter()
            .any(|end| text.contains(end))
}

fn ends_anchored(expression: &str) -> bool {
    (expression.ends_with('$') && !expression.ends_with("\\$"))
        || expression.ends_with("\\Z")
        || expression.ends_with("\\z")
}

/// `https://www.example.com` with a dot that matches any sign.
fn has_loose_dot(expression: &str) -> bool {
    let bytes = expression.as_bytes();
    (1..bytes.len().saturating_sub(1)).any(|i| {
        bytes[i] == b'.' && bytes[i - 1].is_ascii_alphanumeric() && bytes[i + 1].is_ascii_alphanumeric()
    })
}

fn names_host(expression: &str) -> bool {
    let Some((_, rest)) = expression.split_once("://") else { return false };
    let host = rest.split_inclusive('/').next().unwrap_or_default();
    rest.contains("\\.")
        && !has_loose_dot(rest)
        && (host.ends_with('/') || ends_anchored(rest))
        && !host.starts_with('.')
}

/// The signs that an expression can match.
struct Signs {
    any: bool,
    set: BTreeSet<char>,
}

impl Signs {
    fn of(expression: &str) -> Self {
        let mut signs = Self { any: false, set: BTreeSet::new() };
        let mut chars = expression.chars().peekable();
        let mut class: Option<Vec<char>> = None;
        while let Some(c) = chars.next() {
            match (&mut class, c) {
                (None, '[') => {
                    if chars.peek() == Some(&'^') {
                        signs.any = true;
                    }
                    class = Some(Vec::new());
                }
                (Some(_), ']') => signs.set.extend(class.take().map(ranges).unwrap_or_default()),
                (_, '\\') => match chars.next() {
                    Some('w') => signs.set.extend(['_', 'a', '0']),
                    Some('d') => drop(signs.set.insert('0')),
                    Some('s') => signs.set.extend([' ', '\n']),
                    Some('S' | 'W' | 'D') => signs.any = true,
                    Some('Z' | 'A' | 'z' | 'b' | 'B') | None => {}
                    Some(sign) => match &mut class {
                        Some(class) => class.push(sign),
                        None => drop(signs.set.insert(sign)),
                    },
                },
                (Some(class), sign) => class.push(sign),
                (None, '.') => signs.any = true,
                (None, '(') => {
                    if chars.peek() == Some(&'?') {
                        chars.next();
                        chars.next_if(|c| matches!(c, ':' | '=' | '!' | 'i'));
                    }
                }
                (None, '{') => drop(chars.by_ref().find(|&c| c == '}')),
                (None, '^' | '$' | '*' | '+' | '?' | '|' | ')') => {}
                (None, sign) => drop(signs.set.insert(sign)),
            }
        }
        signs
    }

    fn has(&self, signs: &[char]) -> bool {
        self.any || signs.iter().any(|sign| self.set.contains(sign))
    }

    fn ruled_out(&self) -> Dangers {
        let mut left = Dangers::NONE;
        let slash = self.has(&['/', '\\']);
        let cases = [
            (self.has(SHELL), Dangers::SHELL),
            (self.has(SQL), Dangers::SQL),
            (self.has(&['<']), Dangers::HTML),
            (slash && self.has(&['.']), Dangers::PATH_UP),
            (slash, Dangers::PATH_ABS),
            (slash && self.has(&[':', '.']), Dangers::URL),
            (self.has(&['(']), Dangers::CODE),
            (self.has(&['-']), Dangers::LOW),
        ];
        for (possible, danger) in cases {
            if possible {
                left = left.with(danger);
            }
        }
        Dangers::ALL.without(left).without(Dangers::HIGH.with(Dangers::UNCHECKED)).without(Dangers::OBJECT)
    }
}

/// The signs of a class; of a range its ends, and what is dangerous between them.
fn ranges(class: Vec<char>) -> BTreeSet<char> {
    let mut set: BTreeSet<char> = class.iter().copied().filter(|c| *c != '-').collect();
    for (i, &c) in class.iter().enumerate() {
        let (before, after) = (i.checked_sub(1).and_then(|i| class.get(i)), class.get(i + 1));
        match (c, before, after) {
            ('-', Some(&from), Some(&to)) if from < to && (to as u32 - from as u32) < 128 => {
                set.extend((from as u32..=to as u32).filter_map(char::from_u32));
            }
            ('-', _, _) => drop(set.insert('-')),
            _ => {}
        }
    }
    set.remove(&'^');
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_list_counts_only_from_end_to_end() {
        assert!(accepted("^[a-z0-9]+$", false, false).has(Dangers::SHELL));
        assert_eq!(accepted("[a-z0-9]+", true, false), Dangers::NONE);
        assert_eq!(accepted("^[a-z0-9]+", false, false), Dangers::NONE);
        assert!(!accepted("^.*$", false, false).has(Dangers::SHELL));
        assert!(!accepted(r"[\w./]+", true, true).has(Dangers::PATH_UP));
        assert!(accepted(r"[\w.-]+", true, true).has(Dangers::PATH_UP));
    }

    #[test]
    fn hosts_have_to_be_whole() {
        assert!(accepted(r"^https://www\.example\.com/", false, false).has(Dangers::URL));
        assert!(!accepted(r"^https://www.example.com/", false, false).has(Dangers::URL));
        assert!(!accepted(r"^https://www\.example\.com", false, false).has(Dangers::URL));
    }

    #[test]
    fn what_is_taken_out_cannot_harm() {
        assert!(kept("[^a-zA-Z0-9_-]").has(Dangers::SHELL.with(Dangers::PATH)));
        assert_eq!(kept("[a-z]"), Dangers::NONE);
    }
}
