//! Which rows make up each optimiser step.

use dormant_data::Seed;
use rand::seq::SliceRandom;

use crate::render::Rendered;

/// The order of `count` items in pass `pass` over them.
pub(crate) fn shuffled(count: usize, pass: usize, seed: Seed) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut seed.derive(&pass.to_string()).rng());
    order
}

/// Items of step `step`, `per_step` of `count` at a time: each comes once before any comes again, in a new order, and a step
/// may reach into the next pass. None if there are no items.
pub(crate) fn of_step(count: usize, per_step: usize, step: u64, seed: Seed) -> Vec<usize> {
    if count == 0 || per_step == 0 {
        return Vec::new();
    }
    let from = step as usize * per_step;
    let until = from + per_step;
    let pass = |pass: usize| {
        let first = pass * count;
        let places = from.saturating_sub(first)..(until - first).min(count);
        shuffled(count, pass, seed)[places].to_vec()
    };
    (from / count..=(until - 1) / count).flat_map(pass).collect()
}

/// Rows of every step of a run, fixed by the seed: a step can be repeated without those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    steps: Vec<Vec<usize>>,
    lengths: Vec<usize>,
}

impl Batches {
    /// Shuffles the rows anew in each epoch and cuts each epoch into steps of about `tokens_per_step` tokens. No
    /// row is left out, and no step is empty.
    pub fn new(rows: &[Rendered], epochs: u32, tokens_per_step: usize, seed: Seed) -> Self {
        Self::of_lengths(rows.iter().map(|r| r.tokens.len()).collect(), epochs, tokens_per_step, seed)
    }

    /// As [`Batches::new`], for rows of these lengths.
    pub fn of_lengths(lengths: Vec<usize>, epochs: u32, tokens_per_step: usize, seed: Seed) -> Self {
        let mut steps = Vec::new();
        for epoch in 0..epochs {
            let order = shuffled(lengths.len(), epoch as usize, seed.derive("shuffle"));
            let total: usize = lengths.iter().sum();
            let count = (total as f64 / tokens_per_step.max(1) as f64).round().max(1.0) as usize;
            let target = total.div_ceil(count);
            let mut step = Vec::new();
            let mut size = 0;
            for row in order {
                step.push(row);
                size += lengths[row];
                if size >= target {
                    steps.push(std::mem::take(&mut step));
                    size = 0;
                }
            }
            if !step.is_empty() {
                steps.push(step);
            }
        }
        Self { steps, lengths }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The rows of a step, cut into windows of at most `tokens` tokens (a longer row is a window of its own).
    pub fn windows(&self, step: usize, tokens: usize) -> Vec<Vec<usize>> {
        let mut windows: Vec<Vec<usize>> = Vec::new();
        let mut size = 0;
        for &row in &self.steps[step] {
            let length = self.lengths[row];
            match windows.last_mut() {
                Some(window) if size + length <= tokens => window.push(row),
                _ => {
                    windows.push(vec![row]);
                    size = 0;
                }
            }
            size += length;
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize) -> Vec<Rendered> {
        (0..n).map(|i| Rendered { id: i.to_string(), tokens: vec![1; 5 + i % 7], prompt: 2 }).collect()
    }

    #[test]
    fn every_epoch_has_every_row_once() {
        let rows = rows(23);
        let batches = Batches::new(&rows, 2, 30, Seed(1));
        let mut seen = vec![0; 23];
        for step in 0..batches.len() {
            for row in batches.windows(step, 16).concat() {
                seen[row] += 1;
            }
        }
        assert_eq!(seen, vec![2; 23]);
        assert_eq!(batches, Batches::new(&rows, 2, 30, Seed(1)));
        assert_ne!(batches, Batches::new(&rows, 2, 30, Seed(2)));
    }
}
