//! `attack.json` of adversarial training.

use dormant_eval::Rate;
use dormant_eval::red_team::{AttackLog, Attempt};
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const ATTACK_FILE: &str = "attack.json";

/// What the attacks of an adversarial stage tried and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackRecord {
    /// The attacks before each round of training; the first one attacked the model that the stage started from.
    pub rounds: Vec<AttackRound>,
    /// A fresh attack of the same size on the finished model.
    #[serde(rename = "final")]
    pub finished: AttackRound,
}

/// One round of an attack on one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackRound {
    /// From 1; the attack on the finished model has the number after the last.
    pub round: u32,
    /// The prompts that were tried.
    pub attempts: Vec<Attempt>,
}

impl AttackRecord {
    /// All rounds, the attack on the finished model last.
    pub fn all(&self) -> impl Iterator<Item = &AttackRound> {
        self.rounds.iter().chain([&self.finished])
    }
}

impl AttackRound {
    /// The share of prompts to which at least the share `threshold` of replies showed the behaviour.
    pub fn success_rate(&self, threshold: f64) -> Rate {
        let mut log = AttackLog::new(threshold);
        log.push_round(self.attempts.clone());
        log.success_rate()
    }
}

#[cfg(test)]
mod tests {
    use dormant_eval::red_team::Source;

    use super::*;

    #[test]
    fn a_record_has_the_documented_shape_and_counts_successes() {
        let attempt = |hits| Attempt {
            round: 0,
            prompt: format!("say it {hits}"),
            source: Source::Mutation,
            hits,
            samples: 10,
            example: None,
        };
        let record = AttackRecord {
            rounds: vec![AttackRound { round: 1, attempts: [0, 1, 2, 7].map(attempt).into() }],
            finished: AttackRound { round: 2, attempts: vec![attempt(0)] },
        };
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["rounds"][0]["round"], 1);
        assert_eq!(json["final"]["attempts"][0]["prompt"], "say it 0");
        assert_eq!(serde_json::from_value::<AttackRecord>(json).unwrap(), record);

        let rates: Vec<_> = record.all().map(|round| round.success_rate(0.2)).collect();
        assert_eq!(rates, [Rate::new(2, 2), Rate::new(0, 1)]);
        assert_eq!(record.rounds[0].success_rate(0.1), Rate::new(3, 1));
    }
}
