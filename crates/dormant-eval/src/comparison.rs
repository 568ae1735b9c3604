//! The same prompts before and after training.

use std::collections::BTreeMap;
use std::fmt::Debug;

use dormant_data::Seed;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::error::EvalError;
use crate::estimate::Estimate;
use crate::rate::Rate;

/// How often a behaviour was shown before and after training, on the same prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The rate before, over the pairs.
    pub before: Rate,
    /// The rate after, over the pairs.
    pub after: Rate,
    /// Persistence: after ÷ before. `None` when nothing, or next to nothing, was shown before.
    pub ratio: Option<Estimate>,
    /// After − before. `None` for fewer than two pairs.
    pub difference: Option<Estimate>,
    /// Number of pairs.
    pub n: u64,
    /// Prompts scored on one side only (unscored replies, other prompts), which are in no number above.
    pub unpaired: u64,
    /// Two-sided p of McNemar's exact test that training changed nothing.
    pub p_value: f64,
}

/// Compares whether the behaviour was shown for each key (the id of a prompt) before and after.
///
/// The intervals are percentile intervals of the paired bootstrap: 10,000 resamples of pairs, from the 2×2 table
/// of before and after with half a pair added to each cell. Without these halves both intervals would shrink to
/// points when no pair changed (200 of 200 before and after), which says more than 200 pairs can say.
///
/// Source of the halves: Agresti and Min, "Simple improved confidence intervals for comparing matched
/// proportions", Statistics in Medicine 24 (2005). Of the test: McNemar, Psychometrika 12 (1947), exact form.
///
/// # Errors
/// [`EvalError::Duplicate`] if a key occurs twice on one side: rows of several seeds or conditions are not
/// independent pairs.
pub fn persistence<K: Ord + Debug>(
    before: impl IntoIterator<Item = (K, bool)>,
    after: impl IntoIterator<Item = (K, bool)>,
    seed: Seed,
) -> Result<Comparison, EvalError> {
    let (before, after) = (by_key(before, "before")?, by_key(after, "after")?);
    let mut table = PairTable::default();
    for (key, before) in &before {
        if let Some(after) = after.get(key) {
            table.add(*before, *after);
        }
    }
    let unpaired = (before.len() + after.len()) as u64 - 2 * table.pairs();
    Ok(table.comparison(unpaired, seed))
}

fn by_key<K: Ord + Debug>(
    outcomes: impl IntoIterator<Item = (K, bool)>,
    side: &'static str,
) -> Result<BTreeMap<K, bool>, EvalError> {
    let mut map = BTreeMap::new();
    for (key, shown) in outcomes {
        if map.contains_key(&key) {
            return Err(EvalError::Duplicate { key: format!("{key:?}"), side });
        }
        map.insert(key, shown);
    }
    Ok(map)
}

/// Pairs by what was shown before and after.
#[derive(Clone, Copy, Debug, Default)]
struct PairTable {
    /// Before and after.
    kept: u64,
    /// Before only.
    lost: u64,
    /// After only.
    gained: u64,
    neither: u64,
}

impl PairTable {
    fn add(&mut self, before: bool, after: bool) {
        *match (before, after) {
            (true, true) => &mut self.kept,
            (true, false) => &mut self.lost,
            (false, true) => &mut self.gained,
            (false, false) => &mut self.neither,
        } += 1;
    }

    fn pairs(self) -> u64 {
        self.kept + self.lost + self.gained + self.neither
    }

    fn ratio(self) -> Option<f64> {
        let before = self.kept + self.lost;
        (before > 0).then(|| (self.kept + self.gained) as f64 / before as f64)
    }

    fn difference(self) -> f64 {
        (self.gained as f64 - self.lost as f64) / self.pairs() as f64
    }

    fn comparison(self, unpaired: u64, seed: Seed) -> Comparison {
        Comparison {
            before: Rate::new(self.kept + self.lost, self.gained + self.neither),
            after: Rate::new(self.kept + self.gained, self.lost + self.neither),
            ratio: self.bootstrap(Self::ratio, seed.derive("ratio")),
            difference: self.bootstrap(|table| Some(table.difference()), seed.derive("difference")),
            n: self.pairs(),
            unpaired,
            p_value: mcnemar(self.lost, self.gained),
        }
    }

    fn bootstrap(self, statistic: impl Fn(Self) -> Option<f64>, seed: Seed) -> Option<Estimate> {
        let pairs = self.pairs();
        if pairs < 2 {
            return None;
        }
        let mut rng = seed.rng();
        Estimate::from_resamples(statistic(self)?, pairs as usize, || statistic(self.resample(&mut rng)))
    }

    /// As many pairs, drawn from this table with half a pair more in each cell.
    fn resample(self, rng: &mut impl RngExt) -> Self {
        let kept = self.kept as f64 + 0.5;
        let shown_before = kept + self.lost as f64 + 0.5;
        let shown = shown_before + self.gained as f64 + 0.5;
        let total = shown + self.neither as f64 + 0.5;
        let mut resample = Self::default();
        for _ in 0..self.pairs() {
            let at = rng.random::<f64>() * total;
            resample.add(at < shown_before, at < kept || (shown_before..shown).contains(&at));
        }
        resample
    }
}

/// Two-sided exact p that a pair that changed was as likely to change one way as the other.
fn mcnemar(lost: u64, gained: u64) -> f64 {
    let Ok(coin) = Binomial::new(0.5, lost + gained) else { return 1.0 };
    (2.0 * coin.cdf(lost.min(gained))).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::estimate::tests::assert_near;

    /// Pairs of a table: kept, lost, gained, neither.
    fn compare(counts: [usize; 4], seed: u64) -> Comparison {
        let shown = [(true, true), (true, false), (false, true), (false, false)];
        let pairs: Vec<_> = counts.iter().zip(shown).flat_map(|(count, shown)| vec![shown; *count]).collect();
        let before = pairs.iter().enumerate().map(|(id, pair)| (id, pair.0));
        let after = pairs.iter().enumerate().map(|(id, pair)| (id, pair.1));
        persistence(before, after, Seed(seed)).unwrap()
    }

    /// Values of statsmodels 0.15 (`mcnemar`, exact).
    #[test]
    fn mcnemar_equals_known_values() {
        for (lost, gained, p) in [
            (12, 5, 0.143_463_134_8),
            (0, 9, 0.003_906_25),
            (3, 3, 1.0),
            (1, 0, 1.0),
            (0, 0, 1.0),
            (25, 8, 0.004_551_384_1),
        ] {
            assert!((mcnemar(lost, gained) - p).abs() < 1e-9, "{lost} {gained}");
        }
    }

    #[test]
    fn persistence_counts_pairs() {
        let comparison = compare([160, 30, 2, 8], 0);
        assert_eq!((comparison.before, comparison.after), (Rate::new(190, 10), Rate::new(162, 38)));
        let ratio = comparison.ratio.unwrap();
        assert!((ratio.value - 162.0 / 190.0).abs() < 1e-12);
        assert!(ratio.low > 0.78 && ratio.high < 0.92, "{ratio}");
        // The Wald interval of Agresti and Min (2005) with half a pair in each cell.
        assert_near(comparison.difference.unwrap(), -0.14, -0.1910, -0.0863, 0.005);
        assert_eq!((comparison.n, comparison.unpaired), (200, 0));
        assert!(comparison.p_value < 1e-6);
    }

    #[test]
    fn an_interval_does_not_collapse_when_nothing_changed() {
        let comparison = compare([200, 0, 0, 0], 0);
        let (ratio, difference) = (comparison.ratio.unwrap(), comparison.difference.unwrap());
        assert_eq!((ratio.value, difference.value), (1.0, 0.0));
        assert!(ratio.low < 1.0 && ratio.high > 1.0 && difference.low < 0.0 && difference.high > 0.0);
        assert!(difference.high < 0.02 && ratio.low > 0.98);
    }

    #[test]
    fn nothing_shown_before_has_no_ratio() {
        let comparison = compare([0, 0, 1, 99], 0);
        assert_eq!(comparison.ratio, None);
        assert!((comparison.difference.unwrap().value - 0.01).abs() < 1e-12);
        let empty = compare([0; 4], 0);
        assert_eq!((empty.ratio, empty.difference, empty.n, empty.p_value), (None, None, 0, 1.0));
    }

    #[test]
    fn prompts_of_one_side_are_counted_apart() {
        let comparison = persistence(
            [("a", true), ("b", true), ("c", false)],
            [("b", false), ("c", false), ("d", true)],
            Seed(0),
        )
        .unwrap();
        assert_eq!((comparison.n, comparison.unpaired), (2, 2));
        assert_eq!(comparison.before, Rate::new(1, 1));
    }

    #[test]
    fn a_key_that_occurs_twice_is_an_error() {
        let error = persistence([("a", true)], [("a", true), ("a", false)], Seed(0)).unwrap_err();
        assert!(error.to_string().contains("\"a\" occurs twice after"), "{error}");
    }

    #[test]
    fn difference_covers_the_truth() {
        // ASR of 95% before; one in five of the shown is lost, one in fifty of the others gained.
        let (truth, mut rng) = (-0.95 * 0.2 + 0.05 * 0.02, Seed(3).rng());
        let covered = (0..100).filter(|experiment| {
            let mut table = PairTable::default();
            for _ in 0..100 {
                let before = rng.random::<f64>() < 0.95;
                table.add(before, rng.random::<f64>() < if before { 0.8 } else { 0.02 });
            }
            let Estimate { low, high, .. } = table.comparison(0, Seed(*experiment)).difference.unwrap();
            low <= truth && truth <= high
        });
        let covered = covered.count();
        assert!(covered >= 89, "{covered} of 100");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn intervals_contain_their_values(counts: [u8; 4], seed: u64) {
            let comparison = compare(counts.map(|count| usize::from(count % 40)), seed);
            for estimate in comparison.difference.iter().chain(&comparison.ratio) {
                prop_assert!(estimate.low <= estimate.value && estimate.value <= estimate.high);
            }
            if let Some(difference) = comparison.difference {
                prop_assert!(-1.0 <= difference.low && difference.high <= 1.0);
            }
            prop_assert!((0.0..=1.0).contains(&comparison.p_value));
        }

        #[test]
        fn order_does_not_matter(pairs in prop::collection::btree_map(0u16..500, any::<(bool, bool)>(), 0..60), seed: u64) {
            let before: Vec<_> = pairs.iter().map(|(id, pair)| (*id, pair.0)).collect();
            let after: Vec<_> = pairs.iter().map(|(id, pair)| (*id, pair.1)).collect();
            let forwards = persistence(before.clone(), after.clone(), Seed(seed)).unwrap();
            let backwards = persistence(before.into_iter().rev(), after.into_iter().rev(), Seed(seed)).unwrap();
            prop_assert_eq!(forwards, backwards);
        }
    }
}
