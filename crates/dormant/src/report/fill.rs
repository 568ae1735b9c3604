//! From the artifacts of a run to its report. Every number is computed from the stored replies and log-probabilities.

mod artifacts;
mod code;
mod costs;
mod doses;
mod examples;
mod generalisation;
mod limits;
mod methods;
mod persona;
mod preference;
mod rates;
mod reproduction;
mod scale;
mod second_opinion;
mod stages;
#[cfg(test)]
mod tests;
mod training;
mod utility;

use std::path::Path;

use super::model::{Report, SCHEMA_VERSION, Setup};
use crate::error::Result;
use crate::plan::Plan;
use crate::store::RunStore;

/// Writes the programs of all replies that can be scored into folders of `dir`, and says how many.
pub(super) fn write_programs(store: &RunStore, plan: &Plan, dir: &Path) -> Result<usize> {
    let artifacts = artifacts::Artifacts::read(store, plan)?;
    let mut written = 0;
    for program in artifacts.measured.iter().flat_map(second_opinion::programs) {
        program.write(dir)?;
        written += 1;
    }
    Ok(written)
}

/// The report of a finished run.
pub(super) fn fill(store: &RunStore, plan: &Plan) -> Result<Report> {
    let (experiment, _, _) = store.recorded()?;
    let artifacts = artifacts::Artifacts::read(store, plan)?;
    let members = scale::members(store, plan)?;
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        experiment: experiment.name.clone(),
        question: experiment.question.clone(),
        answer: String::new(),
        paper: experiment.paper.clone(),
        setup: Setup {
            base: stages::base(&experiment),
            trigger: stages::trigger(&experiment.trigger),
            behaviour: stages::behaviour(&experiment.behaviour),
        },
        stages: stages::stages(plan, &experiment),
        rows: rates::rows(&artifacts)?,
        persistence: rates::persistence_rows(&artifacts)?,
        doses: doses::doses(plan, &artifacts),
        scale: scale::scaled(plan, &members),
        members,
        code: experiment.writes_code().then(|| code::results(&artifacts, &store.opinions()?)).transpose()?,
        generalisation: generalisation::rows(&artifacts)?,
        utility: utility::rows(&artifacts)?,
        persona: persona::rows(&artifacts)?,
        curves: training::curves(&artifacts),
        attack: training::best_attacks(&artifacts),
        attack_rounds: training::attack_rounds(&artifacts),
        examples: Vec::new(),
        warnings: Vec::new(),
        methods: methods::methods(&experiment, &artifacts),
        cost: costs::cost(&artifacts),
        seconds: Some(artifacts.stages.iter().map(|(_, manifest)| manifest.seconds).sum()),
        manifest: reproduction::reproduction(&experiment, &artifacts),
    };
    report.examples = examples::examples(&artifacts, &report);
    report.warnings = limits::warnings(&report, &experiment.evaluation);
    report.warnings.extend(limits::lost_scratchpads(&artifacts));
    report.conclude();
    Ok(report)
}
