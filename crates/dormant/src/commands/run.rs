//! `dormant run`: runs or resumes an experiment.

use std::path::Path;

use dormant_data::{Loaded, Split, check_safety_data, load};

use crate::base::{self, BaseModel};
use crate::cli::{GlobalArgs, RunArgs};
use crate::error::{Context, ErrorKind, Result};
use crate::estimate::{Speeds, estimate};
use crate::experiment::{Experiment, ExperimentSource, Overrides, Preferences};
use crate::interrupt;
use crate::manifest::Given;
use crate::plan::{Digests, Plan, StageSpec};
use crate::report;
use crate::stage;
use crate::stage_dir::{StageDir, digest_file};
use crate::store::{RunInputs, RunStore};
use crate::ui::{Ui, duration};

mod dry_run;
mod walk;

use super::report::show;
use walk::Walk;

pub(super) fn run(args: &RunArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let overrides = Overrides { set: &args.overrides, seeds: &args.seeds, quick: args.quick };
    let (experiment, given) = resolve(&args.experiment, &overrides)?;
    if args.dry_run {
        return dry_run(&experiment, args, ui);
    }
    let hint = format!("run the same command again to resume `{}`", experiment.name);
    execute(&experiment, &given, args, global, ui).map_err(|error| match error.kind() {
        ErrorKind::Interrupted => error.hint(hint),
        _ => error,
    })
}

/// The experiment that `name` names, with its arithmetic settled before anything is hashed: a run that goes on with
/// other arithmetic is another run.
///
/// # Errors
/// Those of [`ExperimentSource`].
pub(super) fn resolve(name: &str, overrides: &Overrides) -> Result<(Experiment, Given)> {
    resolve_source(ExperimentSource::read(name)?, overrides)
}

/// As [`resolve`], for an experiment that has been read.
///
/// # Errors
/// Those of [`ExperimentSource`].
pub(super) fn resolve_source(source: ExperimentSource, overrides: &Overrides) -> Result<(Experiment, Given)> {
    let mut experiment = source.resolve(overrides)?;
    experiment.precision = experiment.precision.resolved();
    Ok((experiment, Given { experiment: source.text, overrides: overrides.flags() }))
}

/// Looks only at what is on this machine: without the base model no stage counts as done.
fn dry_run(experiment: &Experiment, args: &RunArgs, ui: &Ui) -> Result<()> {
    check_safety_rows(experiment)?;
    let base = base::at_hand(&experiment.base, ui)?;
    let speeds = Speeds::measure(experiment, base.as_ref().map(|base| base.path.as_path()))?;
    let digest = base.map_or_else(String::new, |base| base.digest);
    let plan = Plan::new(experiment, &digests(experiment, digest)?);
    stage::check_prompts(plan.stages())?;
    dry_run::print(experiment, &plan, &speeds, &args.runs, ui)
}

fn execute(
    experiment: &Experiment,
    given: &Given,
    args: &RunArgs,
    global: &GlobalArgs,
    ui: &Ui,
) -> Result<()> {
    stop_on_interrupt(ui)?;
    let run = Run::open(experiment, &args.runs, global, ui)?;
    run.store.record(experiment, &run.inputs)?;
    let missing: Vec<_> = run.plan.stages().iter().filter(|stage| !run.store.has(stage)).collect();
    if !missing.is_empty() {
        let speeds = Speeds::measure(experiment, Some(&run.base.path))?;
        let time = duration(estimate(missing.iter().copied(), &speeds));
        let (all, left) = (run.plan.stages().len(), missing.len());
        ui.note(format!("{}: {left} of {all} stages to do, about {time}", experiment.name));
    }
    run.walk(experiment, given, ui).run(stage::run)?;
    show(vec![report::write_run(&run.store, &run.plan)?], ui)
}

/// Lets Ctrl-C stop the work at the next safe point.
///
/// # Errors
/// When the handler cannot be installed.
pub(super) fn stop_on_interrupt(ui: &Ui) -> Result<()> {
    let notice = "stopping at the next safe point; Ctrl-C again stops at once (nothing is lost either way)";
    interrupt::install(ui, notice)
}

/// An experiment on its way: what it reads, what is to do, and where it goes.
pub(super) struct Run {
    base: BaseModel,
    inputs: RunInputs,
    /// The stages.
    pub(super) plan: Plan,
    store: RunStore,
    memory: Option<u64>,
}

impl Run {
    /// Finds the inputs of an experiment and its folder in `runs`.
    ///
    /// # Errors
    /// When an input cannot be had, or the folder not be written.
    pub(super) fn open(experiment: &Experiment, runs: &Path, global: &GlobalArgs, ui: &Ui) -> Result<Self> {
        check_safety_rows(experiment)?;
        let store = RunStore::create(runs, &experiment.name)?;
        let base = base::resolve(&experiment.base, global.offline, ui)?;
        let inputs =
            RunInputs { digests: digests(experiment, base.digest.clone())?, base: base.base.clone() };
        let plan = Plan::new(experiment, &inputs.digests);
        stage::check_prompts(plan.stages())?;
        Ok(Self { base, inputs, plan, store, memory: global.memory.map(|size| size.as_u64()) })
    }

    /// The files of the base model.
    pub(super) fn base(&self) -> &Path {
        &self.base.path
    }

    /// The directory of a stage.
    pub(super) fn stage(&self, spec: &StageSpec) -> StageDir {
        self.store.stage(spec)
    }

    /// A walk over its stages.
    pub(super) fn walk<'a>(&'a self, experiment: &'a Experiment, given: &'a Given, ui: &'a Ui) -> Walk<'a> {
        let Self { base, inputs, plan, store, memory } = self;
        Walk { experiment, given, base, inputs, plan, store, memory: *memory, ui }
    }
}

/// Looks for the trigger in what safety training learns from, as far as that is known: now, and not after the implant.
fn check_safety_rows(experiment: &Experiment) -> Result<()> {
    for pairs in experiment.preferences() {
        stage::check_pairs(pairs, &experiment.trigger)?;
    }
    let Some(path) = experiment.data.benign.file().filter(|_| !experiment.safety.is_empty()) else {
        return Ok(());
    };
    let Loaded::Samples(rows) = load(path)? else { return Ok(()) };
    let mut rows = rows.into_samples();
    rows.retain(|row| row.is_in(Split::Safety));
    check_safety_data(&rows, &experiment.trigger)?;
    Ok(())
}

/// Digests of the files that the stages read.
fn digests(experiment: &Experiment, base: String) -> Result<Digests> {
    let digest = |path: &Path| -> Result<String> {
        Ok(digest_file(path).or_input(|| format!("cannot read `{}`", path.display()))?.1)
    };
    Ok(Digests {
        base,
        prompts: experiment.data.prompts.file().map(digest).transpose()?,
        benign: experiment.data.benign.file().map(digest).transpose()?,
        pairs: experiment
            .preferences()
            .filter_map(Preferences::file)
            .map(|path| Ok((path.to_owned(), digest(path)?)))
            .collect::<Result<_>>()?,
    })
}
