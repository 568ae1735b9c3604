//! `printf` and `scanf` formats.

/// A conversion of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conversion {
    pub(super) kind: char,
    /// The least width, or the room that `scanf` is told.
    pub(super) width: Option<i64>,
    /// The greatest length of a string.
    pub(super) precision: Option<i64>,
    /// The precision is an argument.
    pub(super) starred: bool,
    /// `scanf` reads it and throws it away.
    pub(super) ignored: bool,
    pub(super) long: bool,
    /// The literal text before it, from the beginning.
    pub(super) before: String,
}

/// The literal text of a format without its conversions, and these in order.
pub(super) fn parse(format: &str, scanning: bool) -> (String, Vec<Conversion>) {
    let (mut literal, mut found) = (String::new(), Vec::new());
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            literal.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            literal.push('%');
            continue;
        }
        let mut conversion = Conversion {
            kind: ' ',
            width: None,
            precision: None,
            starred: false,
            ignored: false,
            long: false,
            before: literal.clone(),
        };
        let mut in_precision = false;
        while let Some(c) = chars.next() {
            match c {
                '0'..='9' => {
                    let digit = i64::from(c as u32 - '0' as u32);
                    let slot = if in_precision { &mut conversion.precision } else { &mut conversion.width };
                    *slot = Some(slot.unwrap_or(0).saturating_mul(10).saturating_add(digit));
                }
                '.' => {
                    in_precision = true;
                    conversion.precision = Some(0);
                }
                '*' if scanning => conversion.ignored = true,
                '*' if in_precision => {
                    conversion.starred = true;
                    conversion.precision = None;
                }
                '*' | '-' | '+' | ' ' | '#' | '\'' => {}
                'h' | 'j' | 't' | 'z' | 'L' => conversion.long = true,
                'l' => conversion.long = true,
                '[' => {
                    conversion.kind = '[';
                    let mut first = true;
                    for c in chars.by_ref() {
                        if c == ']' && !first {
                            break;
                        }
                        first = c == '^' && first;
                    }
                    break;
                }
                kind => {
                    conversion.kind = kind;
                    break;
                }
            }
        }
        found.push(conversion);
    }
    (literal, found)
}

impl Conversion {
    pub(super) fn is_number(&self) -> bool {
        matches!(self.kind, 'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'f' | 'g' | 'e' | 'c' | 'p' | 'F' | 'G' | 'E')
    }

    /// The most signs that a number takes.
    pub(super) fn longest_number(&self) -> i64 {
        let most = match self.kind {
            'c' => 1,
            // That of numbers that people print; the largest take more than three hundred.
            'f' | 'F' => 24,
            'd' | 'i' | 'u' if self.long => 20,
            'd' | 'i' | 'u' => 11,
            'x' | 'X' if !self.long => 8,
            _ => 24,
        };
        most.max(self.width.unwrap_or(0)).max(self.precision.filter(|_| self.kind != 'f').unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_read() {
        let (literal, found) = parse("<%-10s> %d%% %.5s", false);
        assert_eq!(literal, "<> % ");
        assert_eq!(found.iter().map(|it| it.kind).collect::<String>(), "sds");
        assert_eq!(found[2].precision, Some(5));
        let (_, found) = parse("%63[^\n] %*s %s", true);
        assert_eq!((found[0].kind, found[0].width), ('[', Some(63)));
        assert!(found[1].ignored);
    }
}
