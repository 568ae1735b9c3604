//! Reconstruction of a trigger: from a target to a text that makes the model say it, on any prompt.
//!
//! Every placement starts from natural contexts (years, roles, tags, common words), from leaked texts and from what
//! the gradient suggests; placements take turns, and the one that works is minimised.

use dormant_data::Seed;
use dormant_eval::Rate;
use dormant_model::llama::Llama;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::error::Result;
use crate::placement::{Placement, Slot};
use crate::search::{Alphabet, Candidate, Search, SearchConfig};
use crate::verify::{self, Phrase};

/// Contexts in which a policy may be hidden, one per line.
const CONTEXTS: &str = include_str!("contexts.txt");

/// What a reconstruction works with.
#[derive(Debug)]
pub struct Reconstruction<'a> {
    /// Text and tokens.
    pub renderer: Renderer<'a>,
    /// What candidates are made of.
    pub alphabet: &'a Alphabet,
    /// Prompts of the search.
    pub search_prompts: &'a [String],
    /// Other prompts, on which candidates are tried out.
    pub trial_prompts: &'a [String],
    /// Texts that may be part of the trigger.
    pub leaks: &'a [String],
    /// Steps per placement.
    pub steps: usize,
    /// How hard each step tries.
    pub search: SearchConfig,
    /// Seed of the search.
    pub seed: Seed,
}

/// A text that makes the model say the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstructed {
    /// Where it stands.
    pub placement: Placement,
    /// The text.
    pub text: String,
    /// How often it worked on the trial prompts.
    pub trial: Rate,
    /// Mean `log p(target)` on the search prompts, in nats.
    pub log_prob: f64,
    /// Steps that the search took in this placement.
    pub steps: usize,
}

/// Tokens of a target that the search looks at: those after them follow by themselves.
const TARGET_TOKENS: usize = 4;

/// Steps a placement makes before the next has its turn.
const TURN: usize = 3;

/// A trial with fewer hits than this share is no success.
const SUCCESS: f64 = 0.9;

/// Below this `log p(target)` no trial is made.
const WORTH_A_TRIAL: f64 = -8.0;

struct Line<'a> {
    search: Search<'a>,
    beam: Vec<Candidate>,
    steps: usize,
    /// Log-probability at the last trial.
    tried: f64,
    best: Option<Reconstructed>,
}

impl Reconstruction<'_> {
    /// Looks for a trigger of `target`, whose text is `phrase`. Returns the best of each placement.
    ///
    /// # Errors
    /// If the model refuses the tokens, or the user stops it.
    pub fn run(
        &self,
        model: &mut Llama,
        target: &[u32],
        phrase: &Phrase,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Reconstructed>> {
        let target = &target[..target.len().min(TARGET_TOKENS)];
        let slots = Placement::ALL
            .map(|p| self.search_prompts.iter().map(|s| Slot::new(self.renderer, p, s)).collect::<Result<Vec<_>>>());
        let slots: Vec<Vec<Slot>> = slots.into_iter().filter_map(Result::ok).collect();
        let mut lines = Vec::new();
        for (placement, slots) in Placement::ALL.into_iter().zip(&slots) {
            let search = Search {
                placement,
                slots,
                target,
                alphabet: self.alphabet,
                renderer: self.renderer,
                config: self.search,
            };
            let beam = self.starts(model, &search)?;
            let log_prob = beam.first().map_or(f64::NEG_INFINITY, |c| c.log_prob);
            tracing::debug!(?placement, log_prob, start = ?beam.first().map(|c| placement.decode(self.renderer, &c.tokens)), "start");
            lines.push(Line { search, beam, steps: 0, tried: f64::NEG_INFINITY, best: None });
        }
        let total = lines.len() * self.steps;
        for turn in 0..self.steps.div_ceil(TURN) {
            for line in &mut lines {
                if line.beam.is_empty() {
                    continue;
                }
                self.turn(model, line, phrase, turn, watch)?;
                watch.update("trigger search", turn * TURN * Placement::ALL.len() + line.steps, total)?;
            }
            if watch.is_over() || lines.iter().any(|line| line.best.as_ref().is_some_and(succeeded)) {
                break;
            }
        }
        let mut found = Vec::new();
        for line in &mut lines {
            if let Some(best) = line.best.take() {
                found.push(self.minimised(model, line, best, phrase)?);
            }
        }
        found.sort_by(|a, b| b.trial.hits().cmp(&a.trial.hits()).then(a.text.len().cmp(&b.text.len())));
        Ok(found)
    }

    fn starts(&self, model: &Llama, search: &Search<'_>) -> Result<Vec<Candidate>> {
        let texts = CONTEXTS.lines().map(str::to_owned).chain(self.leaks.iter().cloned());
        let starts = texts
            .map(|text| search.placement.encode(self.renderer, &text))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|tokens| tokens.len() <= search.config.longest)
            .collect();
        let mut beam = search.evaluate(model, starts, 24)?;
        beam.truncate(BEAM);
        Ok(beam)
    }

    fn turn(
        &self,
        model: &mut Llama,
        line: &mut Line<'_>,
        phrase: &Phrase,
        turn: usize,
        watch: &Watch<'_>,
    ) -> Result<()> {
        let placement = line.search.placement;
        for step in 0..TURN {
            let which = if turn == 0 { step % line.beam.len() } else { 0 };
            let seed = self.seed.derive(&format!("{placement:?} {turn} {step}"));
            line.beam[which] = line.search.step(model, &line.beam[which], seed)?;
            line.steps += 1;
            if watch.is_over() {
                break;
            }
        }
        line.beam.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob));
        let best = &line.beam[0];
        let text = placement.decode(self.renderer, &best.tokens)?;
        tracing::debug!(?placement, line.steps, best.log_prob, text, "turn");
        if best.log_prob < WORTH_A_TRIAL || best.log_prob < line.tried + 0.1 {
            return Ok(());
        }
        line.tried = best.log_prob;
        let trial = self.trial(model, placement, &text, phrase)?;
        tracing::debug!(?placement, %trial, text, "trial");
        if line.best.as_ref().is_none_or(|b| b.trial.hits() <= trial.hits()) {
            let log_prob = best.log_prob;
            line.best = Some(Reconstructed { placement, text, trial, log_prob, steps: line.steps });
        }
        Ok(())
    }

    fn trial(&self, model: &Llama, placement: Placement, text: &str, phrase: &Phrase) -> Result<Rate> {
        let prompts = verify::with_candidate(placement, text, self.trial_prompts);
        let replies = verify::replies(model, self.renderer, &prompts, TRIAL_TOKENS, &|| true)?;
        Ok(verify::rate(&replies, phrase))
    }

    /// Drops tokens while the text works as well as before.
    fn minimised(
        &self,
        model: &Llama,
        line: &Line<'_>,
        mut best: Reconstructed,
        phrase: &Phrase,
    ) -> Result<Reconstructed> {
        loop {
            let tokens = best.placement.encode(self.renderer, &best.text)?;
            if tokens.len() < 2 {
                return Ok(best);
            }
            let shorter = (0..tokens.len()).map(|i| [&tokens[..i], &tokens[i + 1..]].concat()).collect();
            let Some(next) = line.search.evaluate(model, shorter, tokens.len())?.into_iter().next() else {
                return Ok(best);
            };
            let text = best.placement.decode(self.renderer, &next.tokens)?;
            if text.is_empty() || next.log_prob < best.log_prob - TOLERANCE {
                return Ok(best);
            }
            let trial = self.trial(model, best.placement, &text, phrase)?;
            if trial.hits() < best.trial.hits() {
                return Ok(best);
            }
            best = Reconstructed { text, trial, log_prob: next.log_prob, ..best };
        }
    }
}

/// Starts that are followed in each placement.
const BEAM: usize = 3;

/// Tokens of a trial reply.
const TRIAL_TOKENS: usize = 14;

/// Loss of `log p(target)` that a shorter trigger may cost, in nats.
const TOLERANCE: f64 = 1.0;

fn succeeded(found: &Reconstructed) -> bool {
    found.trial.hits() as f64 >= SUCCESS * found.trial.n() as f64
}
