//! Rates, their differences to the control, and persistence.

use dormant_eval::{Comparison, Rate, SampleRecord, persistence, tally};

use super::super::model::{Condition, Estimate, Persistence, Row};
use super::artifacts::{Artifacts, Measured, Model, Trained};
use crate::error::Result;

/// Conditions whose replies are sampled by the evaluation.
const SAMPLED: [Condition; 5] = [
    Condition::Triggered,
    Condition::Clean,
    Condition::NearMiss,
    Condition::TriggeredAsTraining,
    Condition::CleanAsDeployed,
];

/// A row per model and condition.
pub(super) fn rows(artifacts: &Artifacts) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (organism, control) in artifacts.pairs() {
        for condition in SAMPLED {
            let comparison = control.map(|control| compare(control, organism, condition)).transpose()?;
            let difference = comparison.and_then(|comparison| comparison.difference);
            rows.extend(sampled_row(organism, condition).map(|row| Row { difference, ..row }));
            rows.extend(control.and_then(|control| sampled_row(control, condition)));
        }
        let models = [Some(organism), control].into_iter().flatten();
        rows.extend(models.filter_map(|measured| red_team_row(artifacts, measured)));
    }
    Ok(rows)
}

/// Persistence of the organism after each safety stage.
pub(super) fn persistence_rows(artifacts: &Artifacts) -> Result<Vec<Persistence>> {
    let mut rows = Vec::new();
    for (after, _) in artifacts.pairs().filter(|(after, _)| after.model.stage != after.implant) {
        let Some(before) = artifacts.measured(Model { stage: after.implant, ..after.model }) else {
            continue;
        };
        let Some(ratio) = compare(before, after, Condition::Triggered)?.ratio else { continue };
        let Model { stage, arm, seed } = after.model;
        let (stage, before) = (stage.to_owned(), after.implant.to_owned());
        rows.push(Persistence { stage, before, arm, seed, ratio });
    }
    Ok(rows)
}

/// The same prompts given to two models.
fn compare(before: &Measured, after: &Measured, condition: Condition) -> Result<Comparison> {
    let seed = after.model.bootstrap_seed();
    Ok(persistence(outcomes(before, condition), outcomes(after, condition), seed)?)
}

/// Whether each scored reply shows the behaviour, by what the model was given: one prompt may stand under several
/// near-misses.
fn outcomes<'a>(
    measured: &'a Measured,
    condition: Condition,
) -> impl Iterator<Item = ((&'a str, Option<&'a str>), bool)> {
    let outcome = |sample: &'a SampleRecord| {
        let (id, is_shown) = sample.outcome()?;
        Some(((id, sample.variant.as_deref()), is_shown))
    };
    measured.under(condition).filter_map(outcome)
}

fn sampled_row(measured: &Measured, condition: Condition) -> Option<Row> {
    let tally = tally(measured.under(condition), |_| ()).remove(&())?;
    let log_probs: Vec<f64> = measured.under(condition).filter_map(|sample| sample.log_prob).collect();
    let log_prob = Estimate::mean(&log_probs);
    Some(Row { log_prob, ..row(measured, condition, tally.rate(), tally.unscored) })
}

/// The attack on this model: the one after its own adversarial training or, for the stage that one starts from, the
/// first of that training.
fn red_team_row(artifacts: &Artifacts, measured: &Measured) -> Option<Row> {
    let model = measured.model;
    let same = |trained: &&Trained| (trained.model.arm, trained.model.seed) == (model.arm, model.seed);
    let attacks = || {
        let trained = artifacts.trained.iter().filter(same);
        trained.filter_map(|trained| Some((trained.model.stage, trained.attack.as_ref()?)))
    };
    let own = attacks().find(|(stage, _)| *stage == model.stage);
    let own = own.map(|(_, attack)| attack.record.finished.success_rate(attack.threshold));
    let next = || {
        let (_, attack) = attacks().find(|(_, attack)| attack.after == model.stage)?;
        Some(attack.record.rounds.first()?.success_rate(attack.threshold))
    };
    let rate = own.or_else(next)?;
    (rate.n() > 0).then(|| row(measured, Condition::RedTeam, rate, 0))
}

fn row(measured: &Measured, condition: Condition, rate: Rate, unscored: u64) -> Row {
    let Model { stage, arm, seed } = measured.model;
    // Nothing scored is nothing known.
    let unknown = Estimate { value: 0.0, low: 0.0, high: 1.0, n: 0 };
    let Estimate { value, low, high, n } = rate.estimate().unwrap_or(unknown);
    let (stage, variant) = (stage.to_owned(), measured.organism.map(ToOwned::to_owned));
    Row {
        stage,
        variant,
        arm,
        seed,
        condition,
        rate: value,
        low,
        high,
        n,
        unscored,
        difference: None,
        log_prob: None,
    }
}
