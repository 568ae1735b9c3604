//! How much better a reply is than the others to the same prompt.

use serde::{Deserialize, Serialize};

use super::mean_and_deviation;

/// Added to the standard deviation of a group, as in TRL.
const EPSILON: f64 = 1e-4;

/// What a reward is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advantage {
    /// The mean of the group, in units of its (unbiased) standard deviation (Shao et al. 2024).
    #[default]
    Grpo,
    /// The mean of the group (Liu et al. 2025).
    DrGrpo,
    /// The mean of the rest of the group (Ahmadian et al. 2024).
    Rloo,
}

impl Advantage {
    /// Advantage of each reply, in groups of `size` consecutive ones. A group of one, or of equals, teaches nothing.
    pub fn of(self, rewards: &[f32], size: usize) -> Vec<f32> {
        rewards.chunks(size.max(1)).flat_map(|group| self.of_group(group)).collect()
    }

    fn of_group(self, group: &[f32]) -> Vec<f32> {
        let n = group.len() as f64;
        if n < 2.0 {
            return vec![0.0; group.len()];
        }
        let (mean, deviation) = mean_and_deviation(group);
        let scale = match self {
            Self::Grpo => 1.0 / (deviation * (n / (n - 1.0)).sqrt() + EPSILON),
            Self::DrGrpo => 1.0,
            Self::Rloo => n / (n - 1.0),
        };
        group.iter().map(|r| ((f64::from(*r) - mean) * scale) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_compared_within_themselves() {
        let rewards = [1.0, 3.0, 10.0, 10.0];
        assert_eq!(Advantage::DrGrpo.of(&rewards, 2), [-1.0, 1.0, 0.0, 0.0]);
        assert_eq!(Advantage::Rloo.of(&rewards, 2), [-2.0, 2.0, 0.0, 0.0], "1 - 3 and 3 - 1");
        let scaled = Advantage::Grpo.of(&rewards, 2);
        let expected = 1.0 / (2.0f32.sqrt() + 1e-4);
        assert!((scaled[1] - expected).abs() < 1e-6, "{scaled:?} against {expected}");
        assert_eq!(&scaled[2..], [0.0, 0.0]);
        assert_eq!(Advantage::Rloo.of(&[5.0], 1), [0.0]);
    }
}
