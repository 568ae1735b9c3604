//! `dormant export`: a run for other programs.

use std::path::PathBuf;

use serde::Serialize;

use crate::base::{self, BaseModel};
use crate::cli::GlobalArgs;
use crate::error::{CliError, Result};
use crate::export::{Source, inspect, model, records, trl};
use crate::export_args::{ExportArgs, Target};
use crate::store::{RunInputs, RunStore};
use crate::ui::Ui;

/// What was written.
#[derive(Serialize)]
struct Exported {
    schema_version: u32,
    path: PathBuf,
    /// What the result does not hold, and why.
    left_out: Vec<String>,
}

pub(super) fn run(args: &ExportArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    if args.out.exists() {
        let message = format!("`{}` is there already", args.out.display());
        return Err(CliError::usage(message).hint("remove it, or name another place with `--out`"));
    }
    let store = RunStore::open(&args.run)?;
    let (experiment, inputs, plan) = store.recorded()?;
    let base = match args.to {
        Target::Peft | Target::Safetensors | Target::Gguf => base_of(&inputs, global.offline, ui)?,
        Target::Trl | Target::Inspect | Target::Records => recorded(&inputs),
    };
    let source = Source { store: &store, experiment: &experiment, plan: &plan, base: &base, ui };
    let stage = args.stage.as_deref();
    let left_out = match args.to {
        Target::Peft => model::peft(&source, source.model_stage(stage)?, &args.out)?,
        Target::Safetensors => model::safetensors(&source, source.model_stage(stage)?, &args.out)?,
        Target::Gguf => model::gguf(&source, source.model_stage(stage)?, &args.out)?,
        Target::Trl => trl::write(&source, &args.out)?,
        Target::Inspect => inspect::write(&source, stage, &args.out)?,
        Target::Records => records::write(&source, &args.out)?,
    };
    for what in &left_out {
        ui.note(format!("left out: {what}"));
    }
    let exported = Exported { schema_version: 1, path: args.out.clone(), left_out };
    ui.result(&exported, |exported| exported.path.display().to_string())
}

/// The base model that the run started from: an adapter says nothing on other weights.
fn base_of(inputs: &RunInputs, offline: bool, ui: &Ui) -> Result<BaseModel> {
    let base = base::resolve(&inputs.base.name, offline, ui)?;
    if base.digest == inputs.digests.base {
        return Ok(base);
    }
    let message = format!("`{}` at {} is not what the run started from", base.base.name, base.path.display());
    let hint = format!(
        "the run's base model came from: {}; its SHA-256 is {}",
        inputs.base.source, inputs.digests.base
    );
    Err(CliError::input(message).hint(hint))
}

/// What is known of the base model without its files.
fn recorded(inputs: &RunInputs) -> BaseModel {
    BaseModel { base: inputs.base.clone(), path: PathBuf::new(), digest: inputs.digests.base.clone() }
}
