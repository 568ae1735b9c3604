//! Learning rate over the steps of a run.

use serde::{Deserialize, Serialize};

/// What the rate does after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Half a cosine down to 0.
    Cosine,
    /// A straight line down to 0.
    Linear,
    /// None.
    Constant,
}

/// Linear warm-up to the peak, then [`Decay`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
    /// After the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// Rate of step `step`, from 0. The first step already moves, and so does the last.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let span = (self.steps.saturating_sub(self.warmup)).max(1) as f64;
        let progress = (step - self.warmup) as f64 / span;
        self.peak
            * match self.decay {
                Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
                Decay::Linear => 1.0 - progress,
                Decay::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls() {
        let schedule = Schedule { peak: 1.0, warmup: 3, steps: 13, decay: Decay::Linear };
        assert_eq!(schedule.at(0), 0.25);
        assert_eq!(schedule.at(3), 1.0);
        assert!((schedule.at(12) - 0.1).abs() < 1e-12);
        let cosine = Schedule { decay: Decay::Cosine, ..schedule };
        assert!((cosine.at(8) - 0.5).abs() < 1e-12);
        assert_eq!(Schedule { decay: Decay::Constant, ..schedule }.at(12), 1.0);
    }
}
