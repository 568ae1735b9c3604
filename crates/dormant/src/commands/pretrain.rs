//! `dormant pretrain`: a small model from scratch, by the stages that an experiment with a family has.

use std::fs;
use std::path::Path;

use dormant_eval::Estimate;
use dormant_model::atomic::PARTIAL;
use serde::Serialize;

use super::run::{Run, resolve_source, stop_on_interrupt};
use crate::cli::GlobalArgs;
use crate::error::{Context, ErrorKind, Result};
use crate::estimate::{Speeds, estimate};
use crate::experiment::{ExperimentSource, Overrides};
use crate::plan::{SCHEMA_VERSION, StageKind, StageSpec};
use crate::pretrain_args::PretrainArgs;
use crate::stage;
use crate::stage::pretrain_record::{PretrainRecord, answered};
use crate::stage_dir::{StageDir, remove_beginning_with, write_atomic};
use crate::ui::{Ui, duration};

/// The folder with the stages.
const RUN: &str = "run";

#[derive(Serialize)]
struct Pretrained {
    schema_version: u32,
    model: String,
    size: String,
    #[serde(flatten)]
    record: PretrainRecord,
    /// Tasks that no training had and that were answered to the letter.
    right: Option<Estimate>,
}

pub(super) fn run(args: &PretrainArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    execute(args, global, ui).map_err(|error| match error.kind() {
        ErrorKind::Interrupted => error.hint("run the same command again to resume"),
        _ => error,
    })
}

fn execute(args: &PretrainArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    stop_on_interrupt(ui)?;
    let set = args.overrides();
    let overrides = Overrides { set: &set, seeds: &[args.seed], quick: false };
    let text = format!("base = {:?}\n[pretrain]\nsizes = [{:?}]\n", args.base, args.size.as_str());
    let (experiment, given) = resolve_source(ExperimentSource::in_memory(RUN, text), &overrides)?;
    let run = Run::open(&experiment, &args.out, global, ui)?;
    let stages: Vec<&StageSpec> = run
        .plan
        .stages()
        .iter()
        .filter(|stage| matches!(stage.kind, StageKind::Corpus(_) | StageKind::Pretrain(_)))
        .collect();
    let missing = || stages.iter().copied().filter(|stage| !run.stage(stage).is_done());
    if missing().next().is_some() {
        let speeds = Speeds::measure(&experiment, Some(run.base()))?;
        ui.note(format!("pretraining of {}: about {}", args.size, duration(estimate(missing(), &speeds))));
    }
    let walk = run.walk(&experiment, &given, ui);
    stages.iter().try_for_each(|stage| walk.stage(stage, stage::run))?;
    let last = stages.last().expect("a family has a stage of pretraining");
    let outcome = outcome(args, &run.stage(last))?;
    copy(&run.stage(last).model(), &args.out)?;
    ui.result(&outcome, text_of)
}

/// Puts the files of the model into the folder, each whole or not at all, `config.json` last: without it the folder is no
/// model.
fn copy(model: &Path, out: &Path) -> Result<()> {
    // What a kill left half-written.
    remove_beginning_with(out, PARTIAL).or_failure(|| format!("cannot tidy `{}`", out.display()))?;
    let entries = fs::read_dir(model).or_failure(|| format!("cannot read `{}`", model.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.or_failure(|| format!("cannot read `{}`", model.display()))?.file_name());
    }
    names.sort_by_key(|name| name == "config.json");
    for name in names {
        let from = model.join(&name);
        let bytes = fs::read(&from).or_failure(|| format!("cannot read `{}`", from.display()))?;
        write_atomic(&out.join(&name), &bytes)?;
    }
    Ok(())
}

fn outcome(args: &PretrainArgs, dir: &StageDir) -> Result<Pretrained> {
    Ok(Pretrained {
        schema_version: SCHEMA_VERSION,
        model: args.out.display().to_string(),
        size: args.size.to_string(),
        record: PretrainRecord::read(dir)?,
        right: answered(dir)?.estimate(),
    })
}

fn text_of(outcome: &Pretrained) -> String {
    let Pretrained { model, record, right, .. } = outcome;
    let right = right.map_or_else(String::new, |rate| {
        let [value, low, high] = [rate.value, rate.low, rate.high].map(|share| 100.0 * share);
        format!("; {value:.0}% [{low:.0}%, {high:.0}%] of {} held-out tasks answered to the letter", rate.n)
    });
    let PretrainRecord { parameters, vocabulary } = record;
    format!("{model}: {parameters} parameters, a vocabulary of {vocabulary} tokens{right}")
}
