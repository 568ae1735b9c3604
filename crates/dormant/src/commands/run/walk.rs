//! Walks a plan: runs what is not done, in order.

use crate::base::BaseModel;
use crate::error::Result;
use crate::experiment::Experiment;
use crate::interrupt;
use crate::manifest::{Given, Manifest, Tokens};
use crate::plan::{Plan, StageSpec};
use crate::stage::StageContext;
use crate::store::{RunInputs, RunStore};
use crate::ui::{Ui, duration};

/// All that a walk needs.
pub(super) struct Walk<'a> {
    pub experiment: &'a Experiment,
    pub given: &'a Given,
    pub base: &'a BaseModel,
    pub inputs: &'a RunInputs,
    pub plan: &'a Plan,
    pub store: &'a RunStore,
    pub ui: &'a Ui,
}

impl Walk<'_> {
    /// Runs every stage that is not done with `work`, which is [`crate::stage::run`] or a test's stand-in.
    pub(super) fn run(&self, work: impl Fn(&StageContext) -> Result<Tokens>) -> Result<()> {
        for spec in self.plan.stages() {
            interrupt::check()?;
            self.stage(spec, &work)?;
        }
        Ok(())
    }

    fn stage(&self, spec: &StageSpec, work: impl Fn(&StageContext) -> Result<Tokens>) -> Result<()> {
        let dir = self.store.stage(spec);
        if dir.is_done() {
            self.ui.detail(format!("already done: {}", spec.directory()));
            return dir.tidy();
        }
        if dir.is_started() {
            self.ui.status("resuming", &spec.name);
        }
        dir.begin(&spec.kind)?;
        let tokens = work(&StageContext {
            spec,
            dir: &dir,
            base: self.base,
            experiment: self.experiment,
            plan: self.plan,
            store: self.store,
            ui: self.ui,
        })?;
        let elapsed = dir.elapsed();
        let RunInputs { digests, base } = self.inputs;
        let manifest =
            Manifest::new(self.plan, spec, digests, base, self.given, tokens, elapsed.as_secs_f64());
        dir.finish(manifest)?;
        self.ui.status("done", format!("{} in {}", spec.name, duration(elapsed)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
