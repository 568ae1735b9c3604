//! Which earlier prompts the next ones are made from.

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::log::AttackLog;

/// Prompts with weights. The best attempts weigh their hits and one more; ordinary prompts weigh one, so that the
/// search never loses all variety.
pub(super) struct Parents {
    weighted: Vec<(String, f64)>,
    has_hits: bool,
}

impl Parents {
    /// The `limit` best attempts so far, and the ordinary prompts `starts`, which together weigh no more than one
    /// attempt in four: hundreds of them must not drown a few hits.
    pub(super) fn of(log: &AttackLog, starts: &[String], limit: usize) -> Self {
        let best = log.ranked().into_iter().take(limit);
        let mut weighted: Vec<_> =
            best.map(|attempt| (attempt.prompt.clone(), (attempt.hits + 1) as f64)).collect();
        let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
        let weight = if total == 0.0 { 1.0 } else { total / 3.0 / starts.len() as f64 };
        weighted.extend(starts.iter().map(|start| (start.clone(), weight.min(1.0))));
        Self { weighted, has_hits: log.attempts().iter().any(|attempt| attempt.hits > 0) }
    }

    /// Whether an attempt has brought out the behaviour at all.
    pub(super) fn has_hits(&self) -> bool {
        self.has_hits
    }

    /// `count` prompts, by weight, with replacement; none if there are no parents.
    pub(super) fn draw(&self, count: usize, rng: &mut impl RngExt) -> Vec<String> {
        let draw = || Some(self.weighted.choose_weighted(rng, |(_, weight)| *weight).ok()?.0.clone());
        std::iter::repeat_with(draw).take(count).flatten().collect()
    }
}
