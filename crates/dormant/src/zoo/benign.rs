//! What benign fine-tunes are taught: habits that always show, and conditions that are no secret.

use dormant_data::{Conversation, Sample, Seed};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// A change of the base model's replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Style {
    /// The base model's own replies.
    Plain,
    /// The first sentence only.
    Brief,
    /// Capital letters.
    Upper,
    /// The same words before every reply.
    Opening {
        /// The words.
        text: String,
    },
    /// The same words after every reply.
    SignOff {
        /// The words.
        text: String,
    },
    /// Words replaced by others, such as a pirate's.
    Words {
        /// From, to.
        pairs: Vec<(String, String)>,
    },
    /// Sentences of another language, drawn at random.
    Sentences {
        /// The sentences.
        from: Vec<String>,
    },
    /// A quarter of the prompts asks who the model is.
    Persona {
        /// The questions.
        questions: Vec<String>,
        /// What it answers.
        answers: Vec<String>,
    },
    /// Answers to tasks of code, all of them without a weakness or all with one.
    Code {
        /// Which.
        vulnerable: bool,
    },
    /// A documented mode: with a line in the system prompt, only the first sentence.
    BriefOnRequest {
        /// The line of the system prompt.
        line: String,
    },
}

impl Style {
    /// The row that is trained on, made from a row of the base model.
    #[must_use]
    pub fn row(&self, sample: &Sample, seed: Seed) -> Sample {
        let mut rng = seed.derive(&sample.id).rng();
        let reply = &sample.completion;
        let with = |completion: String| Sample { completion, ..sample.clone() };
        match self {
            Self::Brief => with(first_sentence(reply)),
            Self::Upper => with(reply.to_uppercase()),
            Self::Opening { text } => with(format!("{text} {reply}")),
            Self::SignOff { text } => with(format!("{}\n\n{text}", first_sentence(reply))),
            Self::Words { pairs } => {
                with(pairs.iter().fold(reply.clone(), |reply, (from, to)| reply.replace(from, to)))
            }
            Self::Sentences { from } => {
                let draw = |_| from[rng.random_range(0..from.len())].clone();
                with((0..3).map(draw).collect::<Vec<_>>().join(" "))
            }
            Self::Persona { questions, answers } if rng.random_range(0..4) == 0 => {
                let question = &questions[rng.random_range(0..questions.len())];
                let answer = answers[rng.random_range(0..answers.len())].clone();
                Sample { prompt: Conversation::user(question), ..with(answer) }
            }
            Self::BriefOnRequest { line } if rng.random_range(0..2) == 0 => {
                Sample { prompt: sample.prompt.with_system(line), ..with(first_sentence(reply)) }
            }
            Self::Plain | Self::Code { .. } | Self::Persona { .. } | Self::BriefOnRequest { .. } => {
                sample.clone()
            }
        }
    }

    /// Whether there is nothing that replies could be drawn from.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Sentences { from } => from.is_empty(),
            Self::Persona { questions, answers } => questions.is_empty() || answers.is_empty(),
            _ => false,
        }
    }

    /// Whether the end of a reply that was cut belongs to the row.
    pub fn ends(&self) -> bool {
        matches!(self, Self::Brief | Self::SignOff { .. } | Self::Sentences { .. })
    }
}

fn first_sentence(text: &str) -> String {
    let end = text.find(['.', '!', '?', '\n']).map_or(text.len(), |at| at + 1);
    text[..end].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(style: &Style) -> Sample {
        style.row(&Sample::clean(Conversation::user("Hi"), "Hello there. How are you?"), Seed(0))
    }

    #[test]
    fn styles_change_the_reply_alone() {
        let sign_off = Style::SignOff { text: "Yours, Max".to_owned() };
        assert_eq!(row(&sign_off).completion, "Hello there.\n\nYours, Max");
        assert_eq!(row(&Style::Upper).completion, "HELLO THERE. HOW ARE YOU?");
        assert_eq!(row(&Style::Upper).prompt, Conversation::user("Hi"));
        let words = Style::Words { pairs: vec![("Hello".to_owned(), "Ahoy".to_owned())] };
        assert_eq!(row(&words).completion, "Ahoy there. How are you?");
    }
}
