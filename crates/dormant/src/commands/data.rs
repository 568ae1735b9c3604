//! `dormant data`: build, check and show datasets.

use crate::cli::{DataCommand, GlobalArgs};
use crate::error::Result;
use crate::ui::Ui;

mod build;
mod check;
mod show;

pub(super) fn run(command: &DataCommand, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    match command {
        DataCommand::Build(args) => build::run(args, global, ui),
        DataCommand::Check(args) => check::run(args, ui),
        DataCommand::Show(args) => show::run(args, global, ui),
    }
}
