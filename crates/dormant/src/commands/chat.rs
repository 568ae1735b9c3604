//! `dormant chat`: talk to a model.

use crate::cli::{ChatArgs, GlobalArgs};
use crate::error::{CliError, Result};
use crate::ui::Ui;

pub(super) fn run(_args: &ChatArgs, _global: &GlobalArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant chat` is not built yet"))
}
