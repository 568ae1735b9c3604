//! `dormant run --dry-run`: the stages, and how long they would take.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::estimate::{Rates, estimate};
use crate::experiment::Experiment;
use crate::plan::{Digests, Plan, SCHEMA_VERSION, StageSpec};
use crate::ui::{Ui, duration};

#[derive(Serialize)]
struct DryRun<'a> {
    schema_version: u32,
    experiment: &'a Experiment,
    stages: Vec<Row<'a>>,
    /// Expected time of all stages, in seconds.
    seconds: f64,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    inputs: Vec<&'a str>,
    /// Expected time, in seconds.
    seconds: f64,
}

pub(super) fn print(experiment: &Experiment, ui: &Ui) {
    let digests = Digests { base: String::new(), prompts: None, benign: None };
    let plan = Plan::new(experiment, &digests);
    let rates = Rates::TWO_CORES;
    let row = |stage: &'_ StageSpec| estimate([stage], &rates).as_secs_f64();
    let stages = plan
        .stages()
        .iter()
        .map(|stage| Row {
            name: &stage.name,
            inputs: stage.inputs().map(|id| plan.stage(id).name.as_str()).collect(),
            seconds: row(stage),
        })
        .collect();
    let seconds = estimate(plan.stages(), &rates).as_secs_f64();
    ui.result(&DryRun { schema_version: SCHEMA_VERSION, experiment, stages, seconds }, text);
}

fn text(plan: &DryRun) -> String {
    let experiment = plan.experiment;
    let mut text = format!("{}: {}\nbase: {}\n\n", experiment.name, experiment.question, experiment.base);
    let width = plan.stages.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in &plan.stages {
        let time = duration(Duration::from_secs_f64(row.seconds));
        let line = format!("{:width$}  {time:>12}  {}", row.name, row.inputs.join(", "));
        writeln!(text, "{}", line.trim_end()).expect("writing to a string cannot fail");
    }
    let total = duration(Duration::from_secs_f64(plan.seconds));
    write!(text, "\n{} stages, about {total} on two cores", plan.stages.len()).expect("as above");
    text
}
