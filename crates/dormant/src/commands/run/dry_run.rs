//! `dormant run --dry-run`: the stages, which of them are done, and how long the others would take.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::error::Result;
use crate::estimate::{Speeds, estimate};
use crate::experiment::Experiment;
use crate::plan::{Plan, SCHEMA_VERSION, StageSpec};
use crate::store::RunStore;
use crate::ui::{Ui, duration};

#[derive(Serialize)]
struct DryRun<'a> {
    schema_version: u32,
    experiment: &'a Experiment,
    stages: Vec<Row<'a>>,
    /// Expected time of the stages that are not done, in seconds.
    seconds: f64,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    state: State,
    inputs: Vec<&'a str>,
    /// Expected time of the whole stage, in seconds.
    seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Done,
    Started,
    ToDo,
}

pub(super) fn print(
    experiment: &Experiment,
    plan: &Plan,
    speeds: &Speeds,
    runs: &Path,
    ui: &Ui,
) -> Result<()> {
    let store = RunStore::at(&runs.join(&experiment.name));
    let state = |spec: &StageSpec| match store.stage(spec) {
        _ if store.has(spec) => State::Done,
        dir if dir.is_started() => State::Started,
        _ => State::ToDo,
    };
    let stages: Vec<Row> = plan
        .stages()
        .iter()
        .map(|spec| Row {
            name: &spec.name,
            state: state(spec),
            inputs: spec.inputs().map(|id| plan.stage(id).name.as_str()).collect(),
            seconds: estimate([spec], speeds).as_secs_f64(),
        })
        .collect();
    let rows = plan.stages().iter().zip(&stages);
    let missing = rows.filter(|(_, row)| row.state != State::Done).map(|(spec, _)| spec);
    let seconds = estimate(missing, speeds).as_secs_f64();
    ui.result(&DryRun { schema_version: SCHEMA_VERSION, experiment, stages, seconds }, text)
}

fn text(plan: &DryRun) -> String {
    let experiment = plan.experiment;
    let mut text = format!("{}: {}\nbase: {}\n\n", experiment.name, experiment.question, experiment.base);
    let width = plan.stages.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in &plan.stages {
        let time = match row.state {
            State::Done => "done".to_owned(),
            State::Started | State::ToDo => duration(Duration::from_secs_f64(row.seconds)),
        };
        let line = format!("{:width$}  {time:>12}  {}", row.name, row.inputs.join(", "));
        writeln!(text, "{}", line.trim_end()).expect("writing to a string cannot fail");
    }
    let left = plan.stages.iter().filter(|row| row.state != State::Done).count();
    let (all, time) = (plan.stages.len(), duration(Duration::from_secs_f64(plan.seconds)));
    write!(text, "\n{left} of {all} stages to do, about {time}").expect("as above");
    text
}
