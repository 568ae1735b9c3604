//! A number and how well it is known.

use std::fmt;

use dormant_data::Seed;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The quantile 0.975 of the standard normal distribution.
pub(crate) const Z_95: f64 = 1.959_963_984_540_054;

/// Resamples of a bootstrap. With 10,000 the ends of an interval move by about 1% of its width from one seed to
/// another.
const RESAMPLES: usize = 10_000;

/// The share of resamples for which a statistic may be undefined.
const MAX_UNDEFINED: f64 = 0.05;

/// A value with its 95% interval. `low ≤ value ≤ high`, and all three are finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end of the 95% interval.
    pub low: f64,
    /// Upper end of the 95% interval.
    pub high: f64,
    /// Number of observations that it rests on.
    pub n: u64,
}

impl Estimate {
    /// A proportion `k / n` with Wilson's score interval. `None` if `n` is 0 or `k` is more than `n`.
    ///
    /// Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927);
    /// recommended for all `n` by Brown, Cai and Das Gupta, "Interval estimation for a binomial proportion",
    /// Statistical Science 16 (2001).
    pub fn proportion(k: u64, n: u64) -> Option<Self> {
        if n == 0 || k > n {
            return None;
        }
        let (count, z2) = (n as f64, Z_95 * Z_95);
        let p = k as f64 / count;
        let centre = p + z2 / (2.0 * count);
        let half = Z_95 * (p * (1.0 - p) / count + z2 / (4.0 * count * count)).sqrt();
        let scale = 1.0 + z2 / count;
        // At the borders the interval ends there exactly; rounding must not move it past them.
        let low = if k == 0 { 0.0 } else { ((centre - half) / scale).max(0.0) };
        let high = if k == n { 1.0 } else { ((centre + half) / scale).min(1.0) };
        Some(Self { value: p, low, high, n })
    }

    /// The mean with Student's t interval, as for a measure over training seeds. `None` for fewer than two values,
    /// which have no interval, or if one is not finite.
    pub fn mean(values: &[f64]) -> Option<Self> {
        if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let quantile = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(0.975);
        let half = quantile * (variance / n).sqrt();
        Self::finite(mean, mean - half, mean + half, values.len())
    }

    /// A statistic with its percentile bootstrap interval: the statistic of 10,000 resamples of the items with
    /// replacement. Items that belong together (a prompt before and after, a text with its tokens) are one item.
    ///
    /// `None` for fewer than two items, or if the statistic is undefined (`None`, or not finite) for the items or
    /// for more than 5% of the resamples. The interval is widened to the value where bias left it outside.
    ///
    /// Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), chapter 13.
    pub fn bootstrap<T: Clone>(
        items: &[T],
        statistic: impl Fn(&[T]) -> Option<f64>,
        seed: Seed,
    ) -> Option<Self> {
        if items.len() < 2 {
            return None;
        }
        let value = statistic(items)?;
        let mut rng = seed.derive("bootstrap").rng();
        let mut resample = items.to_vec();
        Self::from_resamples(value, items.len(), || {
            for item in &mut resample {
                item.clone_from(&items[rng.random_range(0..items.len())]);
            }
            statistic(&resample)
        })
    }

    /// The percentile interval of a statistic of resamples, with the rules of [`Estimate::bootstrap`].
    pub(crate) fn from_resamples(
        value: f64,
        n: usize,
        mut resample: impl FnMut() -> Option<f64>,
    ) -> Option<Self> {
        let mut values: Vec<f64> =
            (0..RESAMPLES).filter_map(|_| resample()).filter(|v| v.is_finite()).collect();
        if (values.len() as f64) < (1.0 - MAX_UNDEFINED) * RESAMPLES as f64 {
            return None;
        }
        values.sort_by(f64::total_cmp);
        Self::finite(value, quantile(&values, 0.025).min(value), quantile(&values, 0.975).max(value), n)
    }

    fn finite(value: f64, low: f64, high: f64, n: usize) -> Option<Self> {
        let finite = [value, low, high].iter().all(|number| number.is_finite());
        finite.then_some(Self { value, low, high, n: n as u64 })
    }

    /// The estimate as a percentage: `88.2% [83.1, 92.5] (n = 200)`.
    pub fn percent(self) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            let [value, low, high] = [self.value, self.low, self.high].map(|share| 100.0 * share);
            write!(f, "{value:.1}% [{low:.1}, {high:.1}] (n = {})", self.n)
        })
    }
}

/// `3.85 [2.50, 5.20] (n = 6)`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2}, {:.2}] (n = {})", self.value, self.low, self.high, self.n)
    }
}

/// The quantile of sorted values, interpolated linearly between the two nearest.
fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let position = probability * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    pub(crate) fn assert_near(estimate: Estimate, value: f64, low: f64, high: f64, tolerance: f64) {
        let pairs = [(estimate.value, value), (estimate.low, low), (estimate.high, high)];
        let near = pairs.iter().all(|(got, expected)| (got - expected).abs() < tolerance);
        assert!(near, "{estimate:?} is not {value} [{low}, {high}]");
    }

    /// The four examples of Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in
    /// Medicine 17 (1998), table I, method 3; the rest by statsmodels 0.15 (`proportion_confint`, `wilson`).
    #[test]
    fn wilson_equals_published_values() {
        for (k, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
            (26, 60, 0.315_723_968, 0.558_965_612),
            (190, 200, 0.910_421_851, 0.972_617_354),
            (0, 200, 0.0, 0.018_845_327),
            (10, 10, 0.722_467_200, 1.0),
        ] {
            assert_near(Estimate::proportion(k, n).unwrap(), k as f64 / n as f64, low, high, 5e-5);
        }
    }

    #[test]
    fn nothing_observed_is_no_estimate() {
        assert_eq!(Estimate::proportion(0, 0), None);
        assert_eq!(Estimate::proportion(3, 2), None);
        assert_eq!(Estimate::mean(&[0.5]), None);
        assert_eq!(Estimate::mean(&[0.5, f64::NAN]), None);
        assert_eq!(Estimate::bootstrap(&[1.0], mean, Seed(0)), None);
    }

    /// Values of `scipy.stats.t.interval`, version 1.17.
    #[test]
    fn mean_has_the_t_interval() {
        let seeds = Estimate::mean(&[0.92, 0.88, 0.95]).unwrap();
        assert_near(seeds, 0.916_666_667, 0.829_426_617, 1.003_906_716, 1e-8);
        let six = Estimate::mean(&[3.1, 4.5, 2.2, 5.9, 3.3, 4.1]).unwrap();
        assert_near(six, 3.85, 2.499_934_597, 5.200_065_403, 1e-8);
        assert_eq!(six.to_string(), "3.85 [2.50, 5.20] (n = 6)");
    }

    fn mean(values: &[f64]) -> Option<f64> {
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    #[test]
    fn bootstrap_of_a_mean_is_near_the_normal_interval() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let half = Z_95 * (833.25f64 / 100.0).sqrt();
        assert_near(
            Estimate::bootstrap(&values, mean, Seed(1)).unwrap(),
            49.5,
            49.5 - half,
            49.5 + half,
            0.3,
        );
    }

    #[test]
    fn bootstrap_covers_the_truth() {
        let mut rng = Seed(5).rng();
        let covered = (0..100u64).filter(|experiment| {
            let values: Vec<f64> = (0..40).map(|_| -f64::ln(1.0 - rng.random::<f64>())).collect();
            let Estimate { low, high, .. } = Estimate::bootstrap(&values, mean, Seed(*experiment)).unwrap();
            low <= 1.0 && 1.0 <= high
        });
        let covered = covered.count();
        // Of skewed values, 40 at a time, the percentile interval covers about 92%; 3 deviations around that.
        assert!((84..=99).contains(&covered), "{covered} of 100");
    }

    #[test]
    fn bootstrap_is_seeded_and_strict() {
        let values: Vec<f64> = (1..40).map(|i| f64::from(i).sqrt()).collect();
        let of = |seed| Estimate::bootstrap(&values, mean, Seed(seed)).unwrap();
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
        let undefined_for_some = |v: &[f64]| v.contains(&1.0).then_some(1.0);
        assert_eq!(Estimate::bootstrap(&values, undefined_for_some, Seed(0)), None);
    }

    #[test]
    fn percent_reads_as_in_a_report() {
        let estimate = Estimate { value: 0.8821, low: 0.831, high: 0.925, n: 200 };
        assert_eq!(estimate.percent().to_string(), "88.2% [83.1, 92.5] (n = 200)");
    }

    proptest! {
        #[test]
        fn wilson_contains_its_value_within_bounds(n in 1u64..100_000, share in 0.0..=1.0f64) {
            let k = (share * n as f64) as u64;
            let estimate = Estimate::proportion(k, n).unwrap();
            prop_assert!(0.0 <= estimate.low && estimate.low <= estimate.value);
            prop_assert!(estimate.value <= estimate.high && estimate.high <= 1.0);
            let mirrored = Estimate::proportion(n - k, n).unwrap();
            prop_assert!((mirrored.low - (1.0 - estimate.high)).abs() < 1e-12);
        }

        #[test]
        fn wilson_narrows_with_n(n in 1u64..10_000, share in 0.0..=1.0f64) {
            let k = (share * n as f64) as u64;
            let width = |e: Estimate| e.high - e.low;
            let four_times = Estimate::proportion(4 * k, 4 * n).unwrap();
            prop_assert!(width(four_times) < width(Estimate::proportion(k, n).unwrap()));
        }

        #[test]
        fn mean_moves_with_its_values(values in prop::collection::vec(-1e3..1e3f64, 2..20), shift in -1e3..1e3f64) {
            let before = Estimate::mean(&values).unwrap();
            let moved = values.iter().map(|value| value + shift).collect::<Vec<_>>();
            let after = Estimate::mean(&moved).unwrap();
            prop_assert!((after.low - before.low - shift).abs() < 1e-6);
            prop_assert!(before.low <= before.value && before.value <= before.high);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn bootstrap_contains_its_value(values in prop::collection::vec(-1e3..1e3f64, 2..20), seed: u64) {
            let median = |values: &[f64]| {
                let mut sorted = values.to_vec();
                sorted.sort_by(f64::total_cmp);
                Some(quantile(&sorted, 0.5))
            };
            let estimate = Estimate::bootstrap(&values, median, Seed(seed)).unwrap();
            prop_assert!(estimate.low <= estimate.value && estimate.value <= estimate.high);
            prop_assert!(values.iter().any(|v| *v <= estimate.low) && values.iter().any(|v| *v >= estimate.high));
        }
    }
}
