//! `dormant data`: build, check and show datasets.

use crate::cli::{DataBuildArgs, DataCheckArgs, DataCommand, DataShowArgs, GlobalArgs};
use crate::error::{CliError, Result};
use crate::ui::Ui;

pub(super) fn run(command: &DataCommand, _global: &GlobalArgs, ui: &Ui) -> Result<()> {
    match command {
        DataCommand::Build(args) => build(args, ui),
        DataCommand::Check(args) => check(args, ui),
        DataCommand::Show(args) => show(args, ui),
    }
}

fn build(_args: &DataBuildArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant data build` is not built yet"))
}

fn check(_args: &DataCheckArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant data check` is not built yet"))
}

fn show(_args: &DataShowArgs, _ui: &Ui) -> Result<()> {
    Err(CliError::failure("`dormant data show` is not built yet"))
}
