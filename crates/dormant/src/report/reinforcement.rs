//! Reinforcement learning in numbers: whether the reward rose, whether another preference model agrees, and how far the
//! policy went for it.

use super::format::{count, number};
use super::model::{Curve, Point, Report};
use super::table::{Cell, Table};

/// Of a curve's steps, those at either end that a mean is taken over: a tenth.
const END: usize = 10;

impl Report {
    /// Reward, divergence, entropy and length of each model's reinforcement learning.
    pub(super) fn reinforcement_table(&self) -> Option<Table> {
        let learnt: Vec<&Curve> =
            self.curves.iter().filter(|curve| change(curve, |point| point.reward).is_some()).collect();
        let rises = |curve: &Curve, value: fn(&Point) -> Option<f64>| {
            change(curve, value).is_some_and(|[first, last]| last > first)
        };
        let risen: Vec<&&Curve> = learnt.iter().filter(|curve| rises(curve, |point| point.reward)).collect();
        let agreed = risen.iter().filter(|curve| rises(curve, |point| point.check_reward)).count();
        let widest = learnt.iter().filter_map(|curve| highest(curve)).reduce(f64::max);
        let widest = widest.map_or_else(String::new, |widest| {
            format!(
                " No step began farther than {widest:.2} nats per token from the policy at the beginning."
            )
        });
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
            "Reinforcement learning in numbers: mean of the first tenth of the steps → of the last, each step before its update and \
             on prompts of its own. The reward rises in {} of {}, and the score by the checking model, which gives no reward, in \
             {agreed} of these.{widest} Reward and score in units of their preference model, divergence and entropy in nats per token, \
             length in tokens.",
            risen.len(),
            count(learnt.len(), "run"),
        );
        let mut table = Table::new(caption, 3, &head);
        table.rows = learnt.iter().map(|curve| row(curve)).collect();
        table.unless_empty()
    }
}

fn row(curve: &Curve) -> Vec<Cell> {
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
    fn the_caption_says_what_the_checking_model_says_and_no_divergence_that_was_not_measured() {
        let mut report = crate::report::tests::fixture(1);
        let point = |step, check| Point {
            step,
            reward: Some(step as f64),
            check_reward: Some(check),
            ..Point::default()
        };
        let curve = |points| Curve { stage: "rl".to_owned(), arm: Arm::Organism, seed: 0, points };
        report.curves =
            vec![curve(vec![point(0, 0.5), point(1, 1.5)]), curve(vec![point(0, 0.5), point(1, 0.25)])];
        let caption = report.reinforcement_table().unwrap().caption;
        assert!(
            caption.contains("rises in 2 of 2 runs") && caption.contains("in 1 of these. Reward and"),
            "{caption}"
        );
    }

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
