//! Ctrl-C: the first asks the running stage to stop at its next safe point, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{CliError, Context, Result};
use crate::ui::Ui;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Installs the handler for Ctrl-C and termination signals; `notice` is shown at the first of them.
///
/// # Errors
/// When the system refuses a signal handler.
pub fn install(ui: &Ui, notice: &'static str) -> Result<()> {
    let ui = ui.clone();
    ctrlc::set_handler(move || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(CliError::interrupted().kind().exit_code().into());
        }
        ui.note(notice);
    })
    .or_failure(|| "cannot install the handler for Ctrl-C")
}

/// Whether the user asked to stop. Stages look at this between steps.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Fails with the resumable error when the user asked to stop.
///
/// # Errors
/// [`CliError::interrupted`] after the first Ctrl-C.
pub fn check() -> Result<()> {
    if requested() { Err(CliError::interrupted()) } else { Ok(()) }
}
