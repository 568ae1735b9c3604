//! Walks a plan: runs what is not done, in order.

use std::time::Duration;

use dormant_data::Dataset;
use dormant_tensor::arena;

use crate::base::BaseModel;
use crate::error::Result;
use crate::experiment::Experiment;
use crate::interrupt;
use crate::manifest::{Given, Manifest, Tokens};
use crate::plan::{Plan, StageSpec};
use crate::stage::{self, StageContext};
use crate::stage_dir::StageDir;
use crate::store::{RunInputs, RunStore};
use crate::ui::{Ui, duration};

/// All that a walk needs.
pub(in crate::commands) struct Walk<'a> {
    pub experiment: &'a Experiment,
    pub given: &'a Given,
    pub base: &'a BaseModel,
    pub inputs: &'a RunInputs,
    pub plan: &'a Plan,
    pub store: &'a RunStore,
    pub memory: Option<u64>,
    pub ui: &'a Ui,
}

impl Walk<'_> {
    /// Runs every stage that is not done with `work`, which is [`crate::stage::run`] or a test's stand-in.
    pub(in crate::commands) fn run(&self, work: impl Fn(&StageContext) -> Result<Tokens>) -> Result<()> {
        for spec in self.plan.stages() {
            interrupt::check()?;
            self.stage(spec, &work)?;
        }
        Ok(())
    }

    /// Runs one stage unless it is done.
    pub(in crate::commands) fn stage(
        &self,
        spec: &StageSpec,
        work: impl Fn(&StageContext) -> Result<Tokens>,
    ) -> Result<()> {
        let dir = self.store.stage(spec);
        if dir.is_done() {
            self.ui.detail(format!("already done: {}", spec.directory()));
            return dir.tidy();
        }
        if self.copy(spec, &dir)? {
            return Ok(());
        }
        if dir.is_started() {
            self.ui.status("resuming", &spec.name);
        }
        dir.begin(&spec.kind)?;
        let tokens = work(&self.context(spec, &dir))?;
        // The next stage needs memory of other sizes.
        arena::release();
        let elapsed = dir.elapsed();
        dir.finish(self.manifest(spec, tokens, elapsed))?;
        self.ui.status("done", format!("{} in {}", spec.name, duration(elapsed)));
        Ok(())
    }

    /// Takes a stage over from another run that did the same work, with the cost and the machine of that run.
    fn copy(&self, spec: &StageSpec, dir: &StageDir) -> Result<bool> {
        let Some(twin) = self.store.twin(spec) else { return Ok(false) };
        let copied = dir.copy_of(&twin, |Manifest { tokens, build, host, finished, seconds, .. }| {
            let this = self.manifest(spec, tokens, Duration::ZERO);
            Manifest { build, host, finished, seconds, ..this }
        })?;
        if copied {
            self.ui.status("copied", format!("{} from {}", spec.name, twin.path().display()));
        }
        Ok(copied)
    }

    fn manifest(&self, spec: &StageSpec, tokens: Tokens, elapsed: Duration) -> Manifest {
        let RunInputs { digests, base } = self.inputs;
        Manifest::new(self.plan, spec, digests, base, self.given, tokens, elapsed.as_secs_f64())
    }

    /// What a stage may look at.
    fn context<'a>(&'a self, spec: &'a StageSpec, dir: &'a StageDir) -> StageContext<'a> {
        let Self { experiment, base, plan, store, memory, ui, .. } = self;
        StageContext { spec, dir, base, experiment, plan, store, memory: *memory, ui }
    }

    /// The rows that a stage would train on, or `None` for one that trains nothing. The stages that sample benign
    /// replies must be done.
    pub(in crate::commands) fn training_rows(&self, spec: &StageSpec) -> Result<Option<Dataset>> {
        let dir = self.store.stage(spec);
        stage::training_rows(&self.context(spec, &dir))
    }
}

#[cfg(test)]
mod tests;
