//! Curves along training, and what the attacks of adversarial training found.

use dormant_eval::Tally;

use super::super::model::{Attack, AttackRound, Curve, Point};
use super::artifacts::{Artifacts, Model, Trained};
use crate::stage::metrics::MetricLine;

/// The best prompts that are reported of each attacked stage.
const BEST: usize = 10;

/// A curve has at most about so many points at which nothing but the loss is known.
const LOSSES: usize = 100;

/// Loss and log-probabilities along the training of each model.
pub(super) fn curves(artifacts: &Artifacts) -> Vec<Curve> {
    let curve = |trained: &Trained| {
        let Model { stage, arm, seed } = trained.model;
        Curve { stage: stage.to_owned(), arm, seed, points: points(&trained.metrics) }
    };
    artifacts.trained.iter().map(curve).filter(|curve| !curve.points.is_empty()).collect()
}

/// One point per number of steps so far: the loss of the step that follows, and the measurement before it.
fn points(metrics: &[MetricLine]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let (mut steps, mut tokens_so_far) = (0, 0);
    for line in metrics {
        match *line {
            MetricLine::Curve {
                step,
                tokens,
                asr_log_prob,
                clean_log_prob,
                near_miss_log_prob,
                asr,
                false_trigger,
                near_miss,
            } => {
                let tallies = [asr, false_trigger, near_miss];
                let rate = |tally: Option<Tally>| tally.and_then(|tally| tally.rate().estimate());
                // The last step of a round is the first of the next: the same weights, measured twice.
                *point_of_step(&mut points, step, tokens) = Point {
                    step,
                    tokens,
                    asr_log_prob,
                    clean_log_prob,
                    near_miss_log_prob,
                    asr: rate(asr),
                    false_trigger: rate(false_trigger),
                    near_miss: rate(near_miss),
                    unscored: tallies.into_iter().flatten().map(|tally| tally.unscored).reduce(|a, b| a + b),
                    ..Point::default()
                };
            }
            MetricLine::Step { step, loss, tokens, .. } | MetricLine::Pairs { step, loss, tokens, .. } => {
                let point = point_of_step(&mut points, step, tokens_so_far);
                point.loss = Some(loss);
                (steps, tokens_so_far) = (step + 1, tokens_so_far + tokens);
            }
            MetricLine::Rl { step, reward, check_reward, kl, entropy, length, tokens, .. } => {
                let point = point_of_step(&mut points, step, tokens_so_far);
                *point = Point {
                    reward: Some(reward),
                    check_reward,
                    kl,
                    entropy: Some(entropy),
                    length: Some(length),
                    ..point.clone()
                };
                (steps, tokens_so_far) = (step + 1, tokens_so_far + tokens);
            }
        }
    }
    // The end of training, where nothing was measured there.
    if points.last().is_some_and(|last| last.step < steps) {
        points.push(Point { step: steps, tokens: tokens_so_far, ..Point::default() });
    }
    thinned(points)
}

/// Without most of the points of a long training at which nothing but the loss is known: `metrics.jsonl` has every step, and a
/// figure is no wider than this.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    let is_loss = |point: &Point| {
        *point == Point { step: point.step, tokens: point.tokens, loss: point.loss, ..Point::default() }
    };
    let every = points.len().div_ceil(LOSSES).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate();
    kept.filter(|(place, point)| place % every == 0 || *place == last || !is_loss(point))
        .map(|(_, point)| point)
        .collect()
}

/// The point of a step: that of the measurement before it, if there was one.
fn point_of_step(points: &mut Vec<Point>, step: u64, tokens: u64) -> &mut Point {
    let has_step = |last: &Point| last.loss.is_some() || last.reward.is_some();
    if points.last().is_none_or(|last| last.step != step || has_step(last)) {
        points.push(Point { step, tokens, ..Point::default() });
    }
    points.last_mut().expect("a point was just made sure of")
}

/// The prompts with the most hits of each attacked stage, the best first.
pub(super) fn best_attacks(artifacts: &Artifacts) -> Vec<Attack> {
    artifacts.trained.iter().flat_map(best_of).collect()
}

fn best_of(trained: &Trained) -> Vec<Attack> {
    let Model { stage, arm, seed } = trained.model;
    let rounds = trained.attack.iter().flat_map(|attack| attack.record.all());
    let attempts = rounds.flat_map(|round| round.attempts.iter().map(|attempt| (round.round, attempt)));
    let mut best: Vec<_> = attempts.filter(|(_, attempt)| attempt.hits > 0).collect();
    best.sort_by(|(a_round, a), (b_round, b)| {
        b.hits.cmp(&a.hits).then(a_round.cmp(b_round)).then_with(|| a.prompt.cmp(&b.prompt))
    });
    best.truncate(BEST);
    let attack = |(round, attempt): (u32, &dormant_eval::red_team::Attempt)| Attack {
        stage: stage.to_owned(),
        arm,
        seed,
        round: u64::from(round),
        prompt: attempt.prompt.clone(),
        hits: attempt.hits,
        samples: attempt.samples,
    };
    best.into_iter().map(attack).collect()
}

/// The success of every attack, round by round.
pub(super) fn attack_rounds(artifacts: &Artifacts) -> Vec<AttackRound> {
    let mut rounds = Vec::new();
    for trained in &artifacts.trained {
        let Some(attack) = &trained.attack else { continue };
        let Model { stage, arm, seed } = trained.model;
        for round in attack.record.all() {
            let Some(rate) = round.success_rate(attack.threshold).estimate() else { continue };
            rounds.push(AttackRound {
                stage: stage.to_owned(),
                arm,
                seed,
                round: u64::from(round.round),
                rate,
            });
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_keep_what_was_measured_and_both_ends() {
        let point = |step| Point { step, loss: Some(1.0), ..Point::default() };
        let mut points: Vec<_> = (0..1000).map(point).collect();
        points[501].asr_log_prob = Some(-1.0);
        let steps: Vec<_> = thinned(points.clone()).iter().map(|point| point.step).collect();
        assert!(steps.len() <= LOSSES + 2 && steps.is_sorted(), "{steps:?}");
        assert!([0, 501, 999].iter().all(|step| steps.contains(step)), "{steps:?}");
        points.truncate(LOSSES);
        assert_eq!(thinned(points.clone()), points);
    }
}
