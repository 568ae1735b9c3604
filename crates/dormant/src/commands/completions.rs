//! `dormant completions`: the completion script of a shell.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::error::Result;
use crate::ui::Ui;

pub(super) fn run(args: &CompletionsArgs, ui: &Ui) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dormant", &mut script);
    ui.text(String::from_utf8_lossy(&script).trim_end())
}
