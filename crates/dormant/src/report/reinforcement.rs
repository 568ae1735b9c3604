//! Reinforcement learning in numbers: whether the reward rose, whether another preference model agrees, and how far the
//! policy went for it.

use super::format::{count, signed};
use super::model::{Curve, Point, Report};
use super::table::{Cell, Table};

/// Of a curve's steps, those at either end that a mean is taken over: a tenth.
const END: usize = 10;

impl Report {
    /// Reward, divergence, entropy and length of each model's reinforcement learning.
    pub(super) fn reinforcement_table(&self) -> Option<Table> {
        let learnt: Vec<&Curve> =
            self.curves.iter().filter(|curve| change(curve, |point| point.reward).is_some()).collect();
        let rises = learnt.iter().filter_map(|curve| change(curve, |point| point.reward));
        let rises = rises.filter(|[first, last]| last > first).count();
        let widest = learnt.iter().filter_map(|curve| highest(curve)).fold(0.0, f64::max);
        let head = [
            "Stage",
            "Model",
            "Seed",
            "Steps",
            "Reward",
            "Checking model",
            "Divergence",
            "Highest",
            "Entropy",
            "Length",
        ];
        let caption = format!(
            "Reinforcement learning in numbers: mean of the first tenth of the steps → of the last. The reward rises in {rises} of \
             {}; no step is farther than {widest:.2} nats per token from the policy at the beginning. Reward and the score by \
             the checking model, which gives none, in units of their preference model; divergence and entropy in nats per token; \
             length in tokens.",
            count(learnt.len(), "run"),
        );
        let mut table = Table::new(caption, 3, &head);
        table.rows = learnt.iter().map(|curve| row(curve)).collect();
        table.unless_empty()
    }
}

fn row(curve: &Curve) -> Vec<Cell> {
    let number = |value: f64, digits| signed(value, digits).trim_start_matches('+').to_owned();
    let span = |value: fn(&Point) -> Option<f64>, digits| {
        let change = change(curve, value);
        Cell::measured(
            change.map(|[first, last]| (number(first, digits), format!("→ {}", number(last, digits)))),
        )
    };
    let last = curve.points.last().map_or(0, |point| point.step);
    vec![
        Cell::plain(&curve.stage),
        Cell::plain(curve.arm.as_str()),
        Cell::plain(curve.seed.to_string()),
        Cell::plain(last.to_string()),
        span(|point| point.reward, 2),
        span(|point| point.check_reward, 2),
        span(|point| point.kl, 2),
        Cell::measured(highest(curve).map(|highest| (number(highest, 2), String::new()))),
        span(|point| point.entropy, 2),
        span(|point| point.length, 1),
    ]
}

/// Means over the first and the last tenth of the steps that have the value.
fn change(curve: &Curve, value: impl Fn(&Point) -> Option<f64>) -> Option<[f64; 2]> {
    let values: Vec<f64> = curve.points.iter().filter_map(value).collect();
    let end = values.len().div_ceil(END);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    (end > 0).then(|| [mean(&values[..end]), mean(&values[values.len() - end..])])
}

/// The largest divergence of a step.
fn highest(curve: &Curve) -> Option<f64> {
    curve.points.iter().filter_map(|point| point.kl).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Arm;

    #[test]
    fn means_are_taken_over_a_tenth_of_the_steps_at_either_end() {
        let point = |step: u64| Point { step, reward: Some(step as f64), kl: Some(0.5), ..Point::default() };
        let curve = Curve {
            stage: "rl".to_owned(),
            arm: Arm::Organism,
            seed: 0,
            points: (0..20).map(point).chain([Point::default()]).collect(),
        };
        assert_eq!(change(&curve, |point| point.reward), Some([0.5, 18.5]));
        assert_eq!(change(&curve, |point| point.entropy), None);
        assert_eq!(highest(&curve), Some(0.5));
    }
}
