//! Which contrasts join the rows of each optimiser step.

use dormant_data::Seed;
use dormant_model::llama::Llama;

use crate::batches;
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

    fn of_step(&self, step: u64, seed: Seed) -> Vec<&Contrast> {
        let places = batches::of_step(self.all.len(), self.per_step, step, seed.derive("contrasts"));
        places.into_iter().map(|place| &self.all[place]).collect()
    }
}
