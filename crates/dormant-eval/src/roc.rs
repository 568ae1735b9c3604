//! How well a score separates two groups.

use crate::estimate::{Estimate, Z_95};

/// Area under the ROC curve: the probability that a positive scores higher than a negative, ties counting half.
/// `n` is the number of both. `None` if a group is empty or a score is not a number.
///
/// The interval is Newcombe's fifth: the Hanley–McNeil variance, inverted like Wilson's interval, so that it stays
/// within 0–1 and does not shrink to a point at a perfect separation. It treats scores as independent: one per
/// model or prompt.
///
/// Source: Newcombe, "Confidence intervals for an effect size measure based on the Mann–Whitney statistic. Part 2",
/// Statistics in Medicine 25 (2006), method 5.
pub fn auroc(positives: &[f64], negatives: &[f64]) -> Option<Estimate> {
    let (m, n) = (positives.len(), negatives.len());
    if m == 0 || n == 0 || positives.iter().chain(negatives).any(|score| score.is_nan()) {
        return None;
    }
    let area = area(positives, negatives);
    // How far a true area is from the observed one, beyond the width that 95% allows; it has one root each side.
    let excess = |truth: f64| (area - truth).powi(2) - Z_95 * Z_95 * variance(truth, m as f64, n as f64);
    let (low, high) = (bisect(0.0, area, excess), bisect(1.0, area, excess));
    Some(Estimate { value: area, low, high, n: (m + n) as u64 })
}

/// The share of pairs in which the positive scores higher, by searching each positive among the sorted negatives.
fn area(positives: &[f64], negatives: &[f64]) -> f64 {
    let mut sorted = negatives.to_vec();
    sorted.sort_by(f64::total_cmp);
    let twice: usize = positives
        .iter()
        .map(|score| {
            sorted.partition_point(|other| other < score) + sorted.partition_point(|other| other <= score)
        })
        .sum();
    twice as f64 / 2.0 / (positives.len() as f64 * negatives.len() as f64)
}

/// Variance of an area of `theta` from `m` positives and `n` negatives, with both numbers replaced by their mean
/// where they are not multiplied.
fn variance(theta: f64, m: f64, n: f64) -> f64 {
    let others = f64::midpoint(m, n) - 1.0;
    let shared = (1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta);
    theta * (1.0 - theta) * (1.0 + others * shared) / (m * n)
}

/// The point between `outside`, where `excess` is positive, and `inside`, where it is not, at which it is 0.
fn bisect(mut outside: f64, mut inside: f64, excess: impl Fn(f64) -> f64) -> f64 {
    if outside == inside {
        return inside;
    }
    // Halving 1 this often leaves less than the precision of f64.
    for _ in 0..60 {
        let middle = f64::midpoint(outside, inside);
        if excess(middle) > 0.0 { outside = middle } else { inside = middle }
    }
    inside
}

#[cfg(test)]
mod tests {
    use dormant_data::Seed;
    use proptest::prelude::*;
    use rand::RngExt;

    use super::*;

    /// Value of scikit-learn 1.9 (`roc_auc_score`), with ties.
    #[test]
    fn area_equals_known_value() {
        let estimate = auroc(&[0.1, 0.4, 0.35, 0.8, 0.8, 0.9], &[0.2, 0.4, 0.1, 0.05, 0.8]).unwrap();
        assert!((estimate.value - 0.733_333_333_333_333_4).abs() < 1e-12);
        assert_eq!(estimate.n, 11);
    }

    #[test]
    fn a_perfect_separation_is_not_certain() {
        let estimate = auroc(&[2.0; 20], &[1.0; 20]).unwrap();
        assert_eq!((estimate.value, estimate.high), (1.0, 1.0));
        assert!(estimate.low > 0.8 && estimate.low < 0.95, "{estimate}");
        let one = auroc(&[2.0], &[1.0]).unwrap();
        assert!(one.low < 0.25, "{one}");
    }

    #[test]
    fn no_area_without_scores() {
        assert_eq!(auroc(&[], &[1.0]), None);
        assert_eq!(auroc(&[f64::NAN], &[1.0]), None);
        assert_eq!(auroc(&[f64::INFINITY], &[1.0]).unwrap().value, 1.0);
    }

    #[test]
    fn interval_covers_the_truth() {
        // A positive is the larger of two uniform numbers, so it beats a uniform negative in two of three pairs.
        let mut rng = Seed(1).rng();
        let mut uniform = || rng.random::<f64>();
        let covered = (0..400).filter(|_| {
            let positives: Vec<f64> = (0..20).map(|_| uniform().max(uniform())).collect();
            let negatives: Vec<f64> = (0..30).map(|_| uniform()).collect();
            let Estimate { low, high, .. } = auroc(&positives, &negatives).unwrap();
            low <= 2.0 / 3.0 && 2.0 / 3.0 <= high
        });
        let covered = covered.count();
        assert!((367..=393).contains(&covered), "{covered} of 400");
    }

    proptest! {
        #[test]
        fn interval_contains_the_area_and_mirrors(
            positives in prop::collection::vec(0u8..20, 1..30), negatives in prop::collection::vec(0u8..20, 1..30),
        ) {
            let [positives, negatives] = [positives, negatives].map(|v| v.into_iter().map(f64::from).collect::<Vec<_>>());
            let forth = auroc(&positives, &negatives).unwrap();
            let back = auroc(&negatives, &positives).unwrap();
            prop_assert!(0.0 <= forth.low && forth.low <= forth.value);
            prop_assert!(forth.value <= forth.high && forth.high <= 1.0);
            prop_assert!((forth.low + back.high - 1.0).abs() < 1e-9);
        }
    }
}
