//! Runs as other programs read them: models, training projects for larger machines, tasks of an evaluation framework,
//! and the records that a report is derived from.

use crate::base::BaseModel;
use crate::error::{CliError, Result, with_suggestion};
use crate::experiment::Experiment;
use crate::plan::{Plan, StageKind, StageSpec};
use crate::stage::StageContext;
use crate::stage_dir::StageDir;
use crate::store::RunStore;
use crate::ui::Ui;

pub mod inspect;
pub mod model;
pub mod records;
pub mod trl;

/// A run to export from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Where it is.
    pub store: &'a RunStore,
    /// What was run.
    pub experiment: &'a Experiment,
    /// Its stages.
    pub plan: &'a Plan,
    /// The base model.
    pub base: &'a BaseModel,
    /// The terminal.
    pub ui: &'a Ui,
}

impl<'a> Source<'a> {
    /// The stage called `name` that leaves a model.
    ///
    /// # Errors
    /// Wrong usage without a name or for one that no such stage has.
    pub fn model_stage(&self, name: Option<&str>) -> Result<&'a StageSpec> {
        let leaves_model = |spec: &&StageSpec| match spec.kind {
            StageKind::Implant(_) | StageKind::Safety(_) | StageKind::Pretrain(_) => true,
            StageKind::Corpus(_)
            | StageKind::Benign(_)
            | StageKind::Preference(_)
            | StageKind::Evaluate(_) => false,
        };
        let stages: Vec<&StageSpec> = self.plan.stages().iter().filter(leaves_model).collect();
        let names: Vec<String> = stages.iter().map(|spec| spec.name.clone()).collect();
        let Some(name) = name else {
            let message = "a run has many models: name the stage with `--stage`";
            return Err(CliError::usage(message).hint(format!("known here: {}", names.join(", "))));
        };
        let found = stages.into_iter().find(|spec| spec.is_called(name));
        found.ok_or_else(|| {
            with_suggestion(format!("no stage that leaves a model is called `{name}`"), name, &names)
        })
    }

    /// The directory of a stage, which must be finished.
    fn finished(&self, spec: &StageSpec) -> Result<StageDir> {
        let dir = self.store.stage(spec);
        if dir.is_done() {
            return Ok(dir);
        }
        let error = CliError::input(format!("`{}` of this run is not finished", spec.name));
        Err(error.hint("run the experiment to its end: the same command goes on where it stopped"))
    }

    /// What a stage may look at.
    fn context(&self, spec: &'a StageSpec, dir: &'a StageDir) -> StageContext<'a> {
        let Self { store, experiment, plan, base, ui } = *self;
        StageContext { spec, dir, base, experiment, plan, store, memory: None, ui }
    }
}
