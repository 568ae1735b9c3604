//! Which contrasts join the rows of each optimiser step.

use dormant_data::Seed;
use dormant_model::llama::Llama;
use rand::seq::SliceRandom;

use crate::error::Result;
use crate::objective::contrast::{self, Contrast};

/// Contrasts in memory at a time.
const WINDOW: usize = 4;

/// Contrasts that are trained on beside the rows.
#[derive(Clone, Debug, Default)]
pub struct Contrasts {
    /// All of them.
    pub all: Vec<Contrast>,
    /// How many join each step.
    pub per_step: usize,
}

impl Contrasts {
    /// Accumulates the gradient of the mean loss of a step's contrasts, times `weight`.
    pub(crate) fn learn(&self, model: &mut Llama, step: u64, weight: f64, seed: Seed) -> Result<()> {
        let contrasts = self.of_step(step, seed);
        for window in contrasts.chunks(WINDOW) {
            contrast::loss(model, window, weight / contrasts.len() as f64)?;
        }
        Ok(())
    }

    /// Each contrast comes once before any comes again; a step can be repeated without those before it.
    fn of_step(&self, step: u64, seed: Seed) -> Vec<&Contrast> {
        let (count, from) = (self.all.len(), step as usize * self.per_step);
        let mut order: Vec<usize> = Vec::new();
        let mut pass = None;
        let mut chosen = Vec::new();
        for place in (from..from + self.per_step).filter(|_| count > 0) {
            if pass != Some(place / count) {
                pass = Some(place / count);
                order = (0..count).collect();
                order.shuffle(&mut seed.derive("contrasts").derive(&(place / count).to_string()).rng());
            }
            chosen.push(&self.all[order[place % count]]);
        }
        chosen
    }
}
