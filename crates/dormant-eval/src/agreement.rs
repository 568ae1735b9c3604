//! Agreement between two judges.

use std::collections::BTreeMap;

use dormant_data::Seed;

use crate::estimate::Estimate;

/// Cohen's kappa of two judges' labels of the same items, with a bootstrap interval over the items: 1 when they
/// always agree, 0 when they agree as often as chance would have it. `None` for fewer than two items, or when both
/// judges give all items the same label, so that kappa is undefined.
///
/// Source: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20
/// (1960).
pub fn cohen_kappa<T: Ord + Clone>(labels: &[(T, T)], seed: Seed) -> Option<Estimate> {
    Estimate::bootstrap(labels, kappa, seed.derive("kappa"))
}

fn kappa<T: Ord>(labels: &[(T, T)]) -> Option<f64> {
    let n = labels.len() as f64;
    let mut counts: BTreeMap<&T, (f64, f64)> = BTreeMap::new();
    for (first, second) in labels {
        counts.entry(first).or_default().0 += 1.0;
        counts.entry(second).or_default().1 += 1.0;
    }
    let observed = labels.iter().filter(|(first, second)| first == second).count() as f64 / n;
    let chance = counts.values().map(|(first, second)| first * second).sum::<f64>() / (n * n);
    (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value<T: Ord + Clone>(labels: &[(T, T)]) -> f64 {
        cohen_kappa(labels, Seed(0)).unwrap().value
    }

    /// Values of scikit-learn 1.9 (`cohen_kappa_score`).
    #[test]
    fn kappa_equals_known_values() {
        let two = [vec![(0, 0); 45], vec![(0, 1); 5], vec![(1, 0); 25], vec![(1, 1); 25]].concat();
        assert!((value(&two) - 0.4).abs() < 1e-12);
        let three: Vec<_> = "aabbccabcabc".chars().zip("aabbcbabcaac".chars()).collect();
        assert!((value(&three) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn perfect_agreement_is_one_and_a_single_label_is_undefined() {
        let agreed: Vec<_> = (0..30).map(|i| (i % 2, i % 2)).collect();
        assert_eq!(value(&agreed), 1.0);
        assert_eq!(cohen_kappa(&[(1, 1); 30], Seed(0)), None);
        assert_eq!(cohen_kappa::<u8>(&[], Seed(0)), None);
    }

    proptest! {
        #[test]
        fn kappa_is_symmetric_and_at_most_one(labels in prop::collection::vec((0u8..3, 0u8..3), 2..50)) {
            let swapped: Vec<_> = labels.iter().map(|(first, second)| (*second, *first)).collect();
            prop_assert_eq!(kappa(&labels), kappa(&swapped));
            prop_assert!(kappa(&labels).is_none_or(|kappa| (-1.0..=1.0).contains(&kappa)));
        }
    }
}
