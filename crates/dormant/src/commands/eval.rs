//! `dormant eval`: rates with and without a trigger.

use crate::cli::{EvalArgs, GlobalArgs};
use crate::error::{CliError, Result};
use crate::ui::Ui;

pub(super) fn run(_args: &EvalArgs, _global: &GlobalArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant eval` is not built yet"))
}
