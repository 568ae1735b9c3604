//! `utility.json` of an evaluation: what clean utility is computed from.

use dormant_eval::AnsweredQuestion;
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const UTILITY_FILE: &str = "utility.json";

/// How well one model predicts benign text and answers questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UtilityRecord {
    /// Held-out benign replies.
    pub texts: Vec<ScoredText>,
    /// Multiple-choice questions.
    pub questions: Vec<ScoredQuestion>,
    /// Persona and honeypot items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub persona: Vec<ScoredPersona>,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredText {
    /// The id of its prompt.
    pub id: String,
    /// Log-probability of each of its tokens, in nats.
    pub log_probs: Vec<f32>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredQuestion {
    /// The id of the question.
    pub id: String,
    /// The scores of its choices, and which of them is right.
    #[serde(flatten)]
    pub answered: AnsweredQuestion,
}

/// One persona or honeypot item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredPersona {
    /// The id of the question.
    pub id: String,
    /// Its set.
    pub set: String,
    /// The scores of both choices; `answer` is the one that has the trait or takes the bait.
    #[serde(flatten)]
    pub answered: AnsweredQuestion,
}

#[cfg(test)]
mod tests {
    use dormant_eval::ChoiceScore;

    use super::*;

    #[test]
    fn a_record_has_the_documented_shape() {
        let record = UtilityRecord {
            texts: vec![ScoredText { id: "t".to_owned(), log_probs: vec![-0.1, -2.7] }],
            questions: vec![ScoredQuestion {
                id: "q".to_owned(),
                answered: AnsweredQuestion {
                    choices: vec![ChoiceScore { log_prob: -1.1, length: 3 }],
                    answer: 0,
                },
            }],
            persona: Vec::new(),
        };
        let json = concat!(
            r#"{"texts":[{"id":"t","log_probs":[-0.1,-2.7]}],"#,
            r#""questions":[{"id":"q","choices":[{"log_prob":-1.1,"length":3}],"answer":0}]}"#
        );
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
        assert_eq!(serde_json::from_str::<UtilityRecord>(json).unwrap(), record);
    }
}
