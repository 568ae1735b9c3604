//! Time, progress and interruption of an audit.

use std::time::{Duration, Instant};

use crate::error::{AuditError, Result};

/// What is told of the progress: the work, and how many of how many units are done. Returns whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize) -> bool;

/// A deadline, and somebody who is told of the progress.
pub struct Watch<'a> {
    started: Instant,
    budget: Duration,
    progress: Progress<'a>,
}

impl<'a> Watch<'a> {
    /// Starts the clock.
    pub fn new(budget: Duration, progress: Progress<'a>) -> Self {
        Self { started: Instant::now(), budget, progress }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the time is used up.
    pub fn is_over(&self) -> bool {
        self.elapsed() >= self.budget
    }

    /// Share of the time that is used up.
    pub fn used(&self) -> f64 {
        self.elapsed().as_secs_f64() / self.budget.as_secs_f64()
    }

    /// Says that `done` of `total` units are done.
    ///
    /// # Errors
    /// [`AuditError::Interrupted`] when the user wants to stop.
    pub fn update(&mut self, work: &str, done: usize, total: usize) -> Result<()> {
        if (self.progress)(work, done, total) { Ok(()) } else { Err(AuditError::Interrupted) }
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("budget", &self.budget).finish_non_exhaustive()
    }
}
