//! Time, progress and interruption of an audit.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use dormant_model::generate::{GenerateConfig, Reply, Request};
use dormant_model::llama::Llama;

use crate::error::{AuditError, Result};

/// What is told of the progress: the work, and how many of how many units are done. Returns whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize) -> bool;

/// Share of the time that a search leaves to the verification of what it finds.
const RESERVE: f64 = 0.1;

/// A deadline, and somebody who is told of the progress.
pub struct Watch<'a> {
    started: Instant,
    /// Time that was spent before.
    spent: Duration,
    budget: Duration,
    teller: RefCell<Teller<'a>>,
}

/// Who is told, and what was told last.
struct Teller<'a> {
    progress: Progress<'a>,
    work: String,
    done: usize,
    total: usize,
}

impl<'a> Watch<'a> {
    /// Starts the clock.
    pub fn new(budget: Duration, progress: Progress<'a>) -> Self {
        Self::resumed(Duration::ZERO, budget, progress)
    }

    /// Starts the clock where it was stopped.
    pub fn resumed(spent: Duration, budget: Duration, progress: Progress<'a>) -> Self {
        let teller = Teller { progress, work: String::new(), done: 0, total: 0 };
        Self { started: Instant::now(), spent, budget, teller: RefCell::new(teller) }
    }

    /// Time since the start, without that between a stop and going on.
    pub fn elapsed(&self) -> Duration {
        self.spent + self.started.elapsed()
    }

    /// Whether a search has to stop, so that there is time to verify what it found.
    pub fn is_late(&self) -> bool {
        self.elapsed() >= self.budget.mul_f64(1.0 - RESERVE)
    }

    /// Says that `done` of `total` units are done.
    ///
    /// # Errors
    /// As [`Watch::check`].
    pub fn update(&self, work: &str, done: usize, total: usize) -> Result<()> {
        let mut teller = self.teller.borrow_mut();
        work.clone_into(&mut teller.work);
        (teller.done, teller.total) = (done, total);
        drop(teller);
        self.check()
    }

    /// Whether to go on with the work that was told last.
    ///
    /// # Errors
    /// [`AuditError::OutOfTime`] when the time is used up, [`AuditError::Interrupted`] when the user wants to stop.
    pub fn check(&self) -> Result<()> {
        let teller = &mut *self.teller.borrow_mut();
        if !(teller.progress)(&teller.work, teller.done, teller.total) {
            Err(AuditError::Interrupted)
        } else if self.elapsed() >= self.budget {
            Err(AuditError::OutOfTime { work: teller.work.clone() })
        } else {
            Ok(())
        }
    }

    /// Replies of `model`, for as long as there is time for them.
    ///
    /// # Errors
    /// As [`Watch::check`], or if the model refuses the tokens.
    pub fn generate(
        &self,
        model: &Llama,
        requests: &[Request],
        config: &GenerateConfig,
    ) -> Result<Vec<Reply>> {
        let mut stopped = Ok(());
        let mut goes_on = |_, _| {
            stopped = self.check();
            stopped.is_ok()
        };
        match model.generate(requests, config, &|_, _| false, &mut goes_on) {
            Err(dormant_model::Error::Interrupted) => Err(stopped.err().unwrap_or(AuditError::Interrupted)),
            other => Ok(other?),
        }
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("budget", &self.budget).finish_non_exhaustive()
    }
}
