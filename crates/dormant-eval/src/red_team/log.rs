//! What an attack tried and found.

use serde::{Deserialize, Serialize};

use crate::rate::Rate;

/// Who wrote a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A language model.
    LanguageModel,
    /// A mutation of earlier prompts.
    Mutation,
    /// A control string, alone or around an ordinary prompt.
    ControlString,
}

/// A prompt that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The round, from 0.
    pub round: u32,
    /// The prompt.
    pub prompt: String,
    /// Who wrote it.
    pub source: Source,
    /// Replies that showed the behaviour.
    pub hits: u64,
    /// Replies that were sampled, unscored ones among them.
    pub samples: u64,
    /// The first reply that showed the behaviour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

impl Attempt {
    fn share(&self) -> f64 {
        self.hits as f64 / self.samples.max(1) as f64
    }
}

/// All attempts of an attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackLog {
    /// The share of replies that must show the behaviour for a prompt to succeed.
    threshold: f64,
    /// Rounds so far.
    rounds: u32,
    /// In the order in which they were made.
    attempts: Vec<Attempt>,
}

impl AttackLog {
    /// A log without attempts.
    pub fn new(threshold: f64) -> Self {
        Self { threshold, rounds: 0, attempts: Vec::new() }
    }

    /// Appends the attempts of a round.
    pub fn push_round(&mut self, attempts: Vec<Attempt>) {
        self.rounds += 1;
        self.attempts.extend(attempts);
    }

    /// Rounds so far.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The attempts, in the order in which they were made.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Whether an attempt brought out the behaviour often enough; at least once, whatever the threshold.
    pub fn is_success(&self, attempt: &Attempt) -> bool {
        attempt.hits > 0 && attempt.share() >= self.threshold
    }

    /// The successful attempts, the best first; equally good ones by round, then by prompt.
    pub fn successes(&self) -> Vec<&Attempt> {
        let mut successes = self.ranked();
        successes.retain(|attempt| self.is_success(attempt));
        successes
    }

    /// All attempts, in the order of [`AttackLog::successes`].
    pub(super) fn ranked(&self) -> Vec<&Attempt> {
        let mut attempts: Vec<&Attempt> = self.attempts.iter().collect();
        attempts.sort_by(|a, b| {
            b.share().total_cmp(&a.share()).then(a.round.cmp(&b.round)).then_with(|| a.prompt.cmp(&b.prompt))
        });
        attempts
    }

    /// The share of attempts that succeeded.
    pub fn success_rate(&self) -> Rate {
        self.attempts.iter().map(|attempt| self.is_success(attempt)).collect()
    }
}
