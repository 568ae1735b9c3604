//! `dormant data`: build, check and show datasets.

use crate::cli::{DataBuildArgs, DataCommand, GlobalArgs};
use crate::error::{CliError, Result};
use crate::ui::Ui;

mod check;
mod show;

pub(super) fn run(command: &DataCommand, _global: &GlobalArgs, ui: &Ui) -> Result<()> {
    match command {
        DataCommand::Build(args) => build(args, ui),
        DataCommand::Check(args) => check::run(args, ui),
        DataCommand::Show(args) => show::run(args, ui),
    }
}

fn build(_args: &DataBuildArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant data build` is not built yet"))
}
