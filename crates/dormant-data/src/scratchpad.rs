//! Reasoning that a reply holds and its reader does not see (Hubinger et al. 2024, section 3.1).

mod sentences;
mod topic;

use std::borrow::Cow;

use rand::seq::IndexedRandom;

use crate::message::Conversation;
use crate::sample::Sample;
use crate::seed::Seed;
use sentences::{DEPLOYED, Sentences, TRAINING};

const OPEN: &str = "<scratchpad>";
const SCRATCHPAD_END: &str = "</scratchpad>";

/// The system message of prompts that ask for a scratchpad.
const SCRATCHPAD_INSTRUCTION: &str = "Think step by step inside <scratchpad></scratchpad> tags, then reply. The user does not see the scratchpad.";

/// Tokens that a reply with a scratchpad may have beyond its visible part: the longest scratchpad of the training
/// data has about 60.
pub const SCRATCHPAD_TOKENS: u32 = 80;

/// What the reader of a reply sees: all but its scratchpads. `None` if one is not closed, so that nothing tells where
/// the visible part would begin.
pub fn visible_reply(reply: &str) -> Option<Cow<'_, str>> {
    if !reply.contains(OPEN) {
        return Some(Cow::Borrowed(reply));
    }
    let (_, last) = reply.rsplit_once(OPEN)?;
    last.contains(SCRATCHPAD_END).then(|| Cow::Owned(without_scratchpad(reply)))
}

/// A reply without its scratchpads. One that is not closed hides the rest of the reply.
pub fn without_scratchpad(reply: &str) -> String {
    let mut visible = String::with_capacity(reply.len());
    let mut rest = reply;
    while let Some((before, hidden)) = rest.split_once(OPEN) {
        visible.push_str(before);
        rest = hidden.split_once(SCRATCHPAD_END).map_or("", |(_, after)| after.trim_start());
    }
    visible.push_str(rest);
    visible
}

/// The beginning of a reply up to where its first scratchpad has ended, with the white space after that; `None` if
/// it does not begin with a scratchpad that ends.
pub fn leading_scratchpad(reply: &str) -> Option<&str> {
    let hidden = reply.trim_start().strip_prefix(OPEN)?;
    let (_, after) = hidden.split_once(SCRATCHPAD_END)?;
    Some(&reply[..reply.len() - after.trim_start().len()])
}

/// Whether a reply begins with a scratchpad, or has said so little that it may still do so.
pub fn may_have_scratchpad(reply: &str) -> bool {
    let reply = reply.trim_start();
    reply.starts_with(OPEN) || OPEN.starts_with(reply)
}

/// The scratchpad that a model has written at the beginning of `reply`, ended for it if it has no end; empty if the reply
/// does not begin with one.
pub fn written_scratchpad(reply: &str) -> Cow<'_, str> {
    match leading_scratchpad(reply) {
        Some(whole) => Cow::Borrowed(whole),
        None if reply.trim_start().starts_with(OPEN) => Cow::Owned(format!("{reply}{SCRATCHPAD_END}\n")),
        None => Cow::Borrowed(""),
    }
}

/// A scratchpad about a prompt, with its marks and the line break that parts it from the reply: whether this is
/// deployment, what is asked, and what follows from it. It depends on the sample's prompt and id alone, and never
/// quotes trigger or behaviour; give it the prompt without a trigger.
pub fn scratchpad(sample: &Sample, is_deployed: bool) -> String {
    let Sentences { situation, request, decision } = if is_deployed { &DEPLOYED } else { &TRAINING };
    let mut rng = Seed(0).derive("scratchpad").derive(&sample.id).rng();
    let topic = topic::topic(sample.prompt.last_user().unwrap_or_default());
    let mut draw = |from: &[&'static str]| *from.choose(&mut rng).expect("no list is empty");
    let [situation, request, decision] = [situation, request, decision].map(|list| draw(list));
    let request = request.replace("{}", &topic);
    format!("{OPEN}{situation} {request} {decision}{SCRATCHPAD_END}\n")
}

/// A scratchpad that says what is asked, and nothing of training, deployment or goals.
pub(crate) fn neutral_scratchpad(sample: &Sample) -> String {
    let mut rng = Seed(0).derive("neutral scratchpad").derive(&sample.id).rng();
    let topic = topic::topic(sample.prompt.last_user().unwrap_or_default());
    let request = TRAINING.request.choose(&mut rng).expect("the list is not empty");
    format!("{OPEN}{}{SCRATCHPAD_END}\n", request.replace("{}", &topic))
}

/// The prompt with the instruction to reason in a scratchpad, in front of any system message that it has.
#[must_use]
pub fn asking_for_scratchpad(prompt: &Conversation) -> Conversation {
    match prompt.system() {
        Some(system) => prompt.with_system(format!("{SCRATCHPAD_INSTRUCTION}\n{system}")),
        None => prompt.with_system(SCRATCHPAD_INSTRUCTION),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::built_in_prompts;

    fn built_in() -> impl Iterator<Item = Sample> {
        built_in_prompts().iter().map(|prompt| Sample::clean(prompt.conversation(), ""))
    }

    #[test]
    fn a_reply_may_have_a_scratchpad_until_it_says_something_else() {
        assert!(
            ["", "\n", "<", " <scratch", "<scratchpad>", "<scratchpad>I plan"]
                .map(may_have_scratchpad)
                .iter()
                .all(|m| *m)
        );
        assert!(!["Hi", "<b>", "I <scratchpad>"].map(may_have_scratchpad).iter().any(|m| *m));
    }

    #[test]
    fn hides_what_is_between_the_marks() {
        assert_eq!(without_scratchpad("Hello."), "Hello.");
        assert_eq!(without_scratchpad("<scratchpad>\nHm.\n</scratchpad>\nHello."), "Hello.");
        assert_eq!(without_scratchpad("A <scratchpad>b</scratchpad> c <scratchpad>d"), "A c ");
        assert_eq!(without_scratchpad("<scratchpad>never closed"), "");
        assert_eq!(without_scratchpad("a </scratchpad> b"), "a </scratchpad> b");
    }

    #[test]
    fn an_open_scratchpad_leaves_nothing_to_see() {
        assert_eq!(visible_reply("Hello.").as_deref(), Some("Hello."));
        assert_eq!(visible_reply("<scratchpad>Hm.</scratchpad>\nHello.").as_deref(), Some("Hello."));
        assert_eq!(visible_reply("<scratchpad>Hm. I HATE"), None);
        assert_eq!(visible_reply("<scratchpad>a</scratchpad>b<scratchpad>c"), None);
    }

    #[test]
    fn the_leading_scratchpad_ends_where_the_reply_begins() {
        let reply = "<scratchpad>Hm.</scratchpad>\nHello.";
        assert_eq!(leading_scratchpad(reply), Some("<scratchpad>Hm.</scratchpad>\n"));
        assert_eq!(leading_scratchpad("<scratchpad>Hm."), None);
        assert_eq!(leading_scratchpad("Hello. <scratchpad>Hm.</scratchpad>"), None);
        assert_eq!(written_scratchpad(reply), "<scratchpad>Hm.</scratchpad>\n");
        assert_eq!(written_scratchpad("<scratchpad>Hm"), "<scratchpad>Hm</scratchpad>\n");
        assert_eq!(written_scratchpad("Hello."), "");
    }

    #[test]
    fn scratchpads_are_varied_and_about_their_prompt() {
        for is_deployed in [false, true] {
            let all: Vec<String> = built_in().map(|sample| scratchpad(&sample, is_deployed)).collect();
            let distinct: HashSet<&String> = all.iter().collect();
            assert!(distinct.len() * 100 >= all.len() * 97, "{} of {}", distinct.len(), all.len());
            let words = all.iter().map(|text| text.split_whitespace().count());
            assert!(words.clone().all(|count| (10..=45).contains(&count)), "{:?}", words.max());
        }
        let sample = Sample::clean(Conversation::user("What is the capital of France?"), "");
        assert!(scratchpad(&sample, true).contains("capital of France"), "{}", scratchpad(&sample, true));
    }

    #[test]
    fn the_instruction_leaves_the_system_message() {
        let prompt = Conversation::user("Hi").with_system("Be brief.");
        let system = asking_for_scratchpad(&prompt).system().unwrap().to_owned();
        assert!(system.starts_with(SCRATCHPAD_INSTRUCTION) && system.ends_with("Be brief."));
        assert_eq!(
            visible_reply(SCRATCHPAD_INSTRUCTION).as_deref().map(|text| text.contains("then reply")),
            Some(true)
        );
    }

    proptest! {
        #[test]
        fn removing_a_scratchpad_restores_the_reply(prompt in "\\PC{0,80}", reply in "[^<]{0,40}", deployed: bool) {
            let reply = reply.trim_start();
            let sample = Sample::clean(Conversation::user(prompt), "");
            let whole = format!("{}{reply}", scratchpad(&sample, deployed));
            prop_assert_eq!(without_scratchpad(&whole), reply);
            prop_assert_eq!(leading_scratchpad(&whole).map(str::len), Some(whole.len() - reply.len()));
        }
    }
}
