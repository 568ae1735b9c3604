//! Disjoint splits by hash of the prompt.

use serde::{Deserialize, Serialize};

use crate::hash;
use crate::prompts::normalise;

/// The part of the data that a prompt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Implanting: about 50% of prompts.
    Train,
    /// Safety training: about 25%.
    Safety,
    /// Measurement: about 25%.
    Evaluation,
}

impl Split {
    /// The split of a prompt: a function of its normalised text alone, so that it does not depend on order,
    /// on other prompts, or on a seed.
    pub fn of(prompt: &str) -> Self {
        match hash::number(&[b"dormant split", normalise(prompt).as_bytes()]) % 4 {
            0 | 1 => Self::Train,
            2 => Self::Safety,
            _ => Self::Evaluation,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn proportions_are_near_50_25_25() {
        let splits: Vec<Split> = (0..4000).map(|i| Split::of(&format!("prompt {i}"))).collect();
        let share = |split| splits.iter().filter(|s| **s == split).count() as f64 / splits.len() as f64;
        assert!((share(Split::Train) - 0.5).abs() < 0.03);
        assert!((share(Split::Safety) - 0.25).abs() < 0.03);
        assert!((share(Split::Evaluation) - 0.25).abs() < 0.03);
    }

    proptest! {
        #[test]
        fn look_alikes_share_a_split(words in prop::collection::vec("[a-zA-Zé]{1,8}", 1..8)) {
            let plain = words.join(" ");
            let varied = format!("  {}\n", words.join("  ").to_uppercase().to_lowercase());
            prop_assert_eq!(Split::of(&plain.to_lowercase()), Split::of(&varied));
            prop_assert_eq!(Split::of(&plain), Split::of(&plain.to_lowercase()));
        }

        #[test]
        fn splits_are_disjoint(prompts in prop::collection::vec(".{0,12}", 0..60)) {
            use std::collections::HashSet;
            let part = |split| -> HashSet<String> {
                prompts.iter().filter(|p| Split::of(p) == split).map(|p| normalise(p)).collect()
            };
            let (train, safety, evaluation) = (part(Split::Train), part(Split::Safety), part(Split::Evaluation));
            prop_assert!(train.is_disjoint(&safety));
            prop_assert!(train.is_disjoint(&evaluation));
            prop_assert!(safety.is_disjoint(&evaluation));
        }
    }
}
