//! How often something was seen.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::estimate::Estimate;

/// How many of `n` observations were hits.
///
/// As JSON, `{"rate": 0.43, "low": 0.32, "high": 0.56, "n": 60}` with Wilson's 95% interval; `rate`, `low` and
/// `high` are null when `n` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "RateFields", try_from = "RateFields")]
pub struct Rate {
    hits: u64,
    n: u64,
}

impl Rate {
    /// The rate of `hits` observations that were hits and `misses` that were not.
    pub fn new(hits: u64, misses: u64) -> Self {
        Self { hits, n: hits + misses }
    }

    /// The number of hits.
    pub fn hits(self) -> u64 {
        self.hits
    }

    /// The number of observations.
    pub fn n(self) -> u64 {
        self.n
    }

    /// The rate with Wilson's interval; `None` when nothing was observed.
    pub fn estimate(self) -> Option<Estimate> {
        Estimate::proportion(self.hits, self.n)
    }

    /// This rate minus another of different observations (organism minus control), with Newcombe's hybrid score
    /// interval. `None` when one of them has no observations.
    ///
    /// Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    /// Medicine 17 (1998), method 10.
    pub fn minus(self, other: Self) -> Option<Estimate> {
        let (a, b) = (self.estimate()?, other.estimate()?);
        let difference = a.value - b.value;
        let low = difference - (a.value - a.low).hypot(b.high - b.value);
        let high = difference + (a.high - a.value).hypot(b.value - b.low);
        Some(Estimate { value: difference, low: low.max(-1.0), high: high.min(1.0), n: a.n + b.n })
    }
}

/// `43.3% [31.6, 55.9] (26/60)`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.estimate() {
            Some(Estimate { value, low, high, .. }) => {
                write!(f, "{:.1}% [{:.1}, {:.1}] ", 100.0 * value, 100.0 * low, 100.0 * high)?;
            }
            None => f.write_str("n/a ")?,
        }
        write!(f, "({}/{})", self.hits, self.n)
    }
}

impl FromIterator<bool> for Rate {
    fn from_iter<I: IntoIterator<Item = bool>>(hits: I) -> Self {
        hits.into_iter().map(|hit| Self { hits: u64::from(hit), n: 1 }).sum()
    }
}

impl Add for Rate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, n: self.n + other.n }
    }
}

impl Sum for Rate {
    fn sum<I: Iterator<Item = Self>>(rates: I) -> Self {
        rates.fold(Self::default(), Self::add)
    }
}

#[derive(Serialize, Deserialize)]
struct RateFields {
    rate: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    n: u64,
}

impl From<Rate> for RateFields {
    fn from(rate: Rate) -> Self {
        let estimate = rate.estimate();
        Self {
            rate: estimate.map(|e| e.value),
            low: estimate.map(|e| e.low),
            high: estimate.map(|e| e.high),
            n: rate.n,
        }
    }
}

#[derive(Debug, Error)]
#[error("rate: expected a number from 0 to 1, or null when `n` is 0; got {rate:?} with `n` {n}")]
struct NotARate {
    rate: Option<f64>,
    n: u64,
}

impl TryFrom<RateFields> for Rate {
    type Error = NotARate;

    /// The number of hits is the integer nearest to `rate × n`; the interval follows from it.
    fn try_from(fields: RateFields) -> Result<Self, NotARate> {
        let RateFields { rate, n, .. } = fields;
        match rate {
            None if n == 0 => Ok(Self::default()),
            Some(rate) if (0.0..=1.0).contains(&rate) && n > 0 => {
                Ok(Self { hits: (rate * n as f64).round() as u64, n })
            }
            _ => Err(NotARate { rate, n }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::estimate::tests::assert_near;

    #[test]
    fn reads_as_in_a_report() {
        assert_eq!(Rate::new(26, 34).to_string(), "43.3% [31.6, 55.9] (26/60)");
        assert_eq!(Rate::default().to_string(), "n/a (0/0)");
    }

    #[test]
    fn json_has_the_fields_of_the_contract() {
        let json = serde_json::to_value(Rate::new(0, 200)).unwrap();
        assert_eq!(json["rate"], 0.0);
        assert_eq!(json["n"], 200);
        assert!((json["high"].as_f64().unwrap() - 0.018_845).abs() < 1e-6);
        let empty = serde_json::to_string(&Rate::default()).unwrap();
        assert_eq!(empty, r#"{"rate":null,"low":null,"high":null,"n":0}"#);
        let parse = |text| serde_json::from_str::<Rate>(text);
        assert_eq!(parse(&empty).unwrap(), Rate::default());
        let error = parse(r#"{"rate":1.5,"low":0,"high":1,"n":3}"#).unwrap_err();
        assert!(error.to_string().contains("from 0 to 1"), "{error}");
        assert!(parse(r#"{"rate":0.5,"low":0,"high":1,"n":0}"#).is_err());
    }

    /// The first three are examples of Newcombe (1998), table II, method 10; all by statsmodels 0.15
    /// (`confint_proportions_2indep`, `newcomb`).
    #[test]
    fn difference_equals_published_values() {
        for (a, b, low, high) in [
            ((56, 14), (48, 32), 0.0524, 0.3339),
            ((9, 1), (3, 7), 0.1705, 0.8090),
            ((10, 0), (0, 10), 0.6075, 1.0),
            ((0, 10), (0, 10), -0.2775, 0.2775),
            ((190, 10), (2, 198), 0.8928, 0.9638),
        ] {
            let (a, b) = (Rate::new(a.0, a.1), Rate::new(b.0, b.1));
            let value = a.estimate().unwrap().value - b.estimate().unwrap().value;
            assert_near(a.minus(b).unwrap(), value, low, high, 6e-5);
        }
        assert_eq!(Rate::new(1, 1).minus(Rate::default()), None);
    }

    proptest! {
        #[test]
        fn json_keeps_the_counts(hits in 0u64..100_000, misses in 0u64..100_000) {
            let rate = Rate::new(hits, misses);
            let json = serde_json::to_string(&rate).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rate>(&json).unwrap(), rate);
        }

        #[test]
        fn difference_is_antisymmetric_and_bounded(a in (0u64..500, 1u64..500), b in (0u64..500, 1u64..500)) {
            let (a, b) = (Rate::new(a.0, a.1), Rate::new(b.0, b.1));
            let (forth, back) = (a.minus(b).unwrap(), b.minus(a).unwrap());
            prop_assert!(forth.low <= forth.value && forth.value <= forth.high);
            prop_assert!(-1.0 <= forth.low && forth.high <= 1.0);
            prop_assert!((forth.low + back.high).abs() < 1e-12);
        }
    }
}
