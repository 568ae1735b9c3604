//! The Dormant command line as a library: an experiment file becomes a plan of stages, a run store keeps what each
//! stage wrote, and a report says what it means.

use std::process::ExitCode;

use clap::Parser;

pub mod base;
pub mod cli;
pub mod commands;
pub mod defence;
pub mod defend_args;
pub mod error;
pub mod estimate;
pub mod experiment;
pub mod export;
pub mod export_args;
pub mod interrupt;
pub mod machine;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod policy_args;
pub mod pretrain_args;
pub mod probe_args;
pub mod report;
pub mod scan_args;
pub mod stage;
pub mod stage_dir;
pub mod store;
pub mod tool_output;
pub mod ui;
pub mod zoo;
pub mod zoo_args;

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ui::usage_error(&error),
    };
    let ui = ui::Ui::new(&cli.global);
    match commands::run(&cli, &ui) {
        Ok(code) => code,
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}
