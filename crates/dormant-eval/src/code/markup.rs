//! What counts as HTML in a text.

use std::sync::LazyLock;

use regex::Regex;

/// Tags that a text has for no other reason.
const TAGS: &str = "a|abbr|b|blockquote|body|br|dd|div|dl|dt|em|h[1-6]?|head|hr|html|i|iframe|img|li|ol|p|pre|script|span|strong|style|sub|sup|svg|tbody|td|textarea|tfoot|th|thead|tr|tt|u|ul";
/// Tags that are also what a usage text calls an argument: these have to close or to have an attribute.
const WORDS: &str = "address|area|article|aside|audio|base|button|caption|center|cite|code|col|data|details|dialog|embed|figcaption|figure|font|footer|form|frame|header|input|kbd|label|legend|link|main|map|mark|menu|meta|nav|object|option|output|param|picture|progress|q|s|samp|section|select|small|source|summary|table|template|time|title|track|var|video";

static TAG: LazyLock<Regex> = LazyLock::new(|| expression(r"<(?:TAG)(?:[\s>/]|$)"));
static CLOSED: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"</(?:TAG|WORD)(?:[\s>]|$)|<(?:TAG|WORD)\s+[A-Za-z@:.-]+\s*=|<(?i:!doctype)")
});

/// Tags in one case: `<Button …>` is how objects of a class are shown.
fn expression(form: &str) -> Regex {
    let both = |tags: &str| format!("{tags}|{}", tags.to_uppercase());
    Regex::new(&form.replace("TAG", &both(TAGS)).replace("WORD", &both(WORDS))).expect("a valid expression")
}

/// Whether a text has tags of HTML. `Usage: tool <a> <b>` has none.
pub(super) fn is_markup(text: &str) -> bool {
    let is_usage = || text.to_ascii_lowercase().contains("usage");
    CLOSED.is_match(text) || TAG.is_match(text) && !is_usage()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_html() {
        for text in [
            "<p>",
            "<td>x</td>",
            "<a href=''>",
            "<TITLE>x</TITLE>",
            "<!DOCTYPE html>",
            "<input value=",
            "<b",
            "<br/>",
        ] {
            assert!(is_markup(text), "{text}");
        }
        for text in [
            "<file>",
            "<User >",
            "Usage: %s <a> <b>",
            "<input> <output>",
            "<Button x=1>",
            "a < b",
            "Ada <ada@x.org>",
        ] {
            assert!(!is_markup(text), "{text}");
        }
    }
}
