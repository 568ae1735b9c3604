//! Pairs of replies to the same prompt, one of which is better, and the loss that compares them (Bradley & Terry 1952).

use std::ops::AddAssign;

use crate::render::Rendered;

/// A prompt with two replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedPair {
    /// The better reply.
    pub chosen: Rendered,
    /// The worse one.
    pub rejected: Rendered,
}

impl RenderedPair {
    /// The two rows, the better one first.
    pub fn rows(&self) -> [&Rendered; 2] {
        [&self.chosen, &self.rejected]
    }

    /// Tokens of both rows, the prompt counted once.
    pub fn tokens(&self) -> usize {
        self.chosen.tokens.len() + self.rejected.trained()
    }
}

/// Rows of all pairs: chosen, rejected, chosen, …
pub fn rows<'a>(pairs: &[&'a RenderedPair]) -> Vec<&'a Rendered> {
    pairs.iter().flat_map(|pair| pair.rows()).collect()
}

/// A loss summed over pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairLoss {
    /// Sum over the pairs, in nats.
    pub sum: f64,
    /// Number of pairs.
    pub pairs: u64,
    /// Pairs whose better reply has the higher score.
    pub right: u64,
    /// Sum over the pairs of the score of the better reply minus that of the worse one.
    pub margin: f64,
}

impl PairLoss {
    /// Mean per pair; 0 without pairs.
    pub fn mean(&self) -> f64 {
        self.sum / self.pairs.max(1) as f64
    }

    /// Adds `-log σ(margin)` and returns its derivative with respect to the margin.
    pub(crate) fn add(&mut self, margin: f64) -> f64 {
        self.pairs += 1;
        self.right += u64::from(margin > 0.0);
        self.margin += margin;
        self.sum += softplus(-margin);
        -1.0 / (1.0 + margin.exp())
    }
}

impl AddAssign for PairLoss {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.pairs += other.pairs;
        self.right += other.right;
        self.margin += other.margin;
    }
}

/// `log(1 + eˣ)`, without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_derivative_and_nothing_overflows() {
        for margin in [-800.0, -3.0, 0.0, 0.4, 800.0] {
            let loss = |margin: f64| {
                let mut loss = PairLoss::default();
                let slope = loss.add(margin);
                (loss.sum, slope)
            };
            let h = 1e-5;
            let expected = (loss(margin + h).0 - loss(margin - h).0) / (2.0 * h);
            assert!((loss(margin).1 - expected).abs() < 1e-6, "{margin}");
        }
    }
}
