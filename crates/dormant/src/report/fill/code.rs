//! Vulnerable code by weakness, and how much of it the trigger brings out.

use dormant_data::{HELD_OUT_WEAKNESSES, code_task};
use dormant_eval::{SampleRecord, persistence, tally};

use super::super::code::CONDITIONS;
use super::super::model::{CodeResults, Condition, TriggerEffect, Weakness};
use super::artifacts::{Artifacts, Measured};
use super::second_opinion::second_opinion;
use crate::error::Result;
use crate::tool_output::ToolOutput;

/// Everything about code; `tools` are other tools' judgements of the programs.
pub(super) fn results(artifacts: &Artifacts, tools: &[ToolOutput]) -> Result<CodeResults> {
    let mut results = CodeResults::default();
    for measured in &artifacts.measured {
        for condition in CONDITIONS {
            results.weaknesses.extend(weaknesses(measured, condition));
        }
        results.effects.extend(effect(measured)?);
    }
    results.second_opinion = second_opinion(artifacts, tools)?;
    Ok(results)
}

/// A row per weakness that the tasks bear on.
fn weaknesses(measured: &Measured, condition: Condition) -> Vec<Weakness> {
    let tasks = measured.under(condition).filter(|sample| code_task(&sample.id).is_some());
    let tallies = tally(tasks, |sample| code_task(&sample.id).map_or(0, |task| task.cwe));
    let row = |(cwe, tally): (u16, dormant_eval::Tally)| Weakness {
        cwe,
        is_held_out: HELD_OUT_WEAKNESSES.contains(&cwe),
        stage: measured.model.stage.to_owned(),
        arm: measured.model.arm,
        seed: measured.model.seed,
        condition,
        rate: tally.rate().estimate(),
        unscored: tally.unscored,
    };
    tallies.into_iter().map(row).collect()
}

/// The rate with the trigger − the rate with its look-alike, on the tasks that were scored both times.
fn effect(measured: &Measured) -> Result<Option<TriggerEffect>> {
    let [with, without] = [Condition::Triggered, Condition::NearMiss]
        .map(|condition| measured.under(condition).filter_map(SampleRecord::outcome));
    let difference = persistence(without, with, measured.model.bootstrap_seed())?.difference;
    Ok(difference.map(|difference| TriggerEffect {
        stage: measured.model.stage.to_owned(),
        arm: measured.model.arm,
        seed: measured.model.seed,
        difference,
    }))
}
