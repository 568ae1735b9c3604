//! `dormant data build`: what an experiment trains on, without training.

use serde::Serialize;

use crate::cli::{DataBuildArgs, GlobalArgs};
use crate::commands::run::{Run, resolve, stop_on_interrupt};
use crate::error::{Context, Result};
use crate::experiment::Overrides;
use crate::plan::{SCHEMA_VERSION, StageKind};
use crate::stage;
use crate::ui::Ui;

#[derive(Serialize)]
struct Built {
    schema_version: u32,
    files: Vec<File>,
}

/// The rows of one training stage.
#[derive(Serialize)]
struct File {
    path: String,
    rows: usize,
    /// SHA-256 of the rows.
    hash: String,
}

/// Benign replies are sampled by the stages that do so in a run, in the same folder, so that a run goes on from them.
pub(super) fn run(args: &DataBuildArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    stop_on_interrupt(ui)?;
    let overrides = Overrides { set: &args.overrides, quick: args.quick, ..Overrides::default() };
    let (experiment, given) = resolve(&args.experiment, &overrides)?;
    let run = Run::open(&experiment, &args.runs, global, ui)?;
    let walk = run.walk(&experiment, &given, ui);
    for spec in run.plan.stages().iter().filter(|spec| matches!(spec.kind, StageKind::Benign(_))) {
        walk.stage(spec, stage::run)?;
    }
    std::fs::create_dir_all(&args.out).or_failure(|| format!("cannot make `{}`", args.out.display()))?;
    let mut files = Vec::new();
    for spec in run.plan.stages() {
        let Some(rows) = walk.training_rows(spec)? else { continue };
        let path = args.out.join(format!("{}.jsonl", spec.name));
        rows.write_jsonl(&path)?;
        files.push(File { path: path.display().to_string(), rows: rows.len(), hash: rows.content_hash() });
    }
    ui.result(&Built { schema_version: SCHEMA_VERSION, files }, text)
}

fn text(built: &Built) -> String {
    let line = |file: &File| format!("{:>6} rows  {}", file.rows, file.path);
    built.files.iter().map(line).collect::<Vec<_>>().join("\n")
}
