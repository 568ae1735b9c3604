//! `dormant bench`: this machine.

use crate::cli::{BenchArgs, GlobalArgs};
use crate::error::{CliError, Result};
use crate::ui::Ui;

pub(super) fn run(_args: &BenchArgs, _global: &GlobalArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant bench` is not built yet"))
}
