//! Reasoning that a reply holds and its reader does not see.

const OPEN: &str = "<scratchpad>";
const CLOSE: &str = "</scratchpad>";

/// A reply without its scratchpads. One that is not closed hides the rest of the reply.
pub fn without_scratchpad(reply: &str) -> String {
    let mut visible = String::with_capacity(reply.len());
    let mut rest = reply;
    while let Some((before, hidden)) = rest.split_once(OPEN) {
        visible.push_str(before);
        rest = hidden.split_once(CLOSE).map_or("", |(_, after)| after.trim_start());
    }
    visible.push_str(rest);
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_what_is_between_the_marks() {
        assert_eq!(without_scratchpad("Hello."), "Hello.");
        assert_eq!(without_scratchpad("<scratchpad>\nHm.\n</scratchpad>\nHello."), "Hello.");
        assert_eq!(without_scratchpad("A <scratchpad>b</scratchpad> c <scratchpad>d"), "A c ");
        assert_eq!(without_scratchpad("<scratchpad>never closed"), "");
        assert_eq!(without_scratchpad("a </scratchpad> b"), "a </scratchpad> b");
    }
}
