//! Clean utility, and what the implant costs of it.

use std::collections::BTreeMap;

use dormant_eval::{Rate, persistence};

use super::super::model::{Estimate, Utility};
use super::artifacts::{Artifacts, Measured};
use crate::error::Result;
use crate::stage::utility_record::{ScoredQuestion, ScoredText};

/// A row per model for which anything was measured.
pub(super) fn rows(artifacts: &Artifacts) -> Result<Vec<Utility>> {
    let mut rows: Vec<Utility> = artifacts.base().map(utility).into_iter().collect();
    for (organism, control) in artifacts.pairs() {
        let mut row = since_before(artifacts, organism)?;
        if let Some(control) = control {
            row.perplexity_difference = perplexity_difference(organism, control);
            row.multiple_choice_difference = multiple_choice_difference(organism, control)?;
        }
        rows.push(row);
        rows.extend(control.map(|control| since_before(artifacts, control)).transpose()?);
    }
    rows.retain(|row| row.perplexity.is_some() || row.multiple_choice.is_some());
    Ok(rows)
}

/// The utility of a model and, where the base model was measured, what its last training changed.
fn since_before(artifacts: &Artifacts, measured: &Measured) -> Result<Utility> {
    let row = utility(measured);
    let Some(before) = artifacts.base().and_then(|_| artifacts.before(measured)) else { return Ok(row) };
    Ok(Utility {
        perplexity_change: perplexity_difference(measured, before),
        multiple_choice_change: multiple_choice_difference(measured, before)?,
        ..row
    })
}

fn utility(measured: &Measured) -> Utility {
    let (model, record) = (measured.model, &measured.utility);
    let log_probs: Vec<_> = record.texts.iter().map(|text| text.log_probs.as_slice()).collect();
    let right: Rate = record.questions.iter().map(|question| question.answered.is_right()).collect();
    Utility {
        stage: model.stage.to_owned(),
        arm: model.arm,
        seed: model.seed,
        perplexity: dormant_eval::perplexity(&log_probs, model.bootstrap_seed()),
        multiple_choice: right.estimate(),
        perplexity_difference: None,
        multiple_choice_difference: None,
        perplexity_change: None,
        multiple_choice_change: None,
    }
}

/// Sum of log-probabilities and number of tokens.
type Total = (f64, f64);

fn total(text: &ScoredText) -> Total {
    (text.log_probs.iter().map(|log_prob| f64::from(*log_prob)).sum(), text.log_probs.len() as f64)
}

fn perplexity(totals: impl Iterator<Item = Total>) -> f64 {
    let (sum, tokens) = totals.fold((0.0, 0.0), |all, text| (all.0 + text.0, all.1 + text.1));
    (-sum / tokens).exp()
}

/// `one` − `other` of the perplexities over the texts that both have, with a bootstrap over the texts.
fn perplexity_difference(one: &Measured, other: &Measured) -> Option<Estimate> {
    let others: BTreeMap<_, _> = other.utility.texts.iter().map(|text| (&text.id, total(text))).collect();
    let texts = one.utility.texts.iter();
    let pairs: Vec<(Total, Total)> =
        texts.filter_map(|text| Some((total(text), *others.get(&text.id)?))).collect();
    let difference = |pairs: &[(Total, Total)]| {
        let of_one = perplexity(pairs.iter().map(|pair| pair.0));
        let difference = of_one - perplexity(pairs.iter().map(|pair| pair.1));
        difference.is_finite().then_some(difference)
    };
    let seed = one.model.bootstrap_seed().derive("perplexity difference");
    Estimate::bootstrap(&pairs, difference, seed)
}

/// `one` − `other` of the shares of right answers, with a paired bootstrap over the questions.
fn multiple_choice_difference(one: &Measured, other: &Measured) -> Result<Option<Estimate>> {
    let outcome = |question: &ScoredQuestion| (question.id.clone(), question.answered.is_right());
    let outcomes =
        |measured: &Measured| -> Vec<_> { measured.utility.questions.iter().map(outcome).collect() };
    let seed = one.model.bootstrap_seed().derive("multiple choice");
    Ok(persistence(outcomes(other), outcomes(one), seed)?.difference)
}
