//! `dormant models`: list, download and verify models.

use crate::cli::{GlobalArgs, ModelsCommand};
use crate::error::{CliError, Result};
use crate::ui::Ui;

pub(super) fn run(_command: &ModelsCommand, _global: &GlobalArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant models` is not built yet"))
}
