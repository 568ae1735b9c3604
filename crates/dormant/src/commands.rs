//! One file per command.

use std::process::ExitCode;

use dormant_tensor::isa::Isa;

use crate::cli::{Cli, Command, GlobalArgs, Kernels};
use crate::error::{Context, Result};
use crate::ui::Ui;

mod bench;
mod chat;
mod completions;
mod data;
mod defend;
mod eval;
mod export;
mod models;
mod pretrain;
mod probe;
mod report;
mod run;
mod scan;
mod score;
mod zoo;

/// Runs the command that the user asked for, and returns the exit code of the process.
///
/// # Errors
/// Whatever the command fails with.
pub fn run(cli: &Cli, ui: &Ui) -> Result<ExitCode> {
    threads(&cli.global)?;
    kernels(&cli.global);
    // As one of the threads that compute: handing every product to the pool from outside would cost two switches.
    rayon::scope(|_| dispatch(cli, ui))
}

fn dispatch(cli: &Cli, ui: &Ui) -> Result<ExitCode> {
    match &cli.command {
        Command::Run(args) => run::run(args, &cli.global, ui),
        Command::Eval(args) => eval::run(args, &cli.global, ui),
        Command::Pretrain(args) => pretrain::run(args, &cli.global, ui),
        Command::Chat(args) => chat::run(args, &cli.global, ui),
        Command::Score(args) => score::run(args, ui),
        Command::Data(command) => data::run(command, &cli.global, ui),
        Command::Report(args) => report::run(args, ui),
        Command::Export(args) => export::run(args, &cli.global, ui),
        Command::Models(command) => models::run(command, &cli.global, ui),
        Command::Scan(args) => return scan::run(args, &cli.global, ui),
        Command::Probe(args) => probe::run(args, &cli.global, ui),
        Command::Defend(args) => defend::run(args, &cli.global, ui),
        Command::Zoo(command) => zoo::run(command, &cli.global, ui),
        Command::Bench(args) => bench::run(args, &cli.global, ui),
        Command::Completions(args) => completions::run(args, ui),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn threads(global: &GlobalArgs) -> Result<()> {
    let Some(threads) = global.threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.into())
        .build_global()
        .or_failure(|| format!("cannot start {threads} threads"))
}

/// Before the first kernel runs, or it would have no effect.
fn kernels(global: &GlobalArgs) {
    let Some(kernels) = global.kernels else { return };
    Isa::limit(match kernels {
        Kernels::Portable => Isa::Portable,
        Kernels::Avx2 => Isa::Avx2,
        Kernels::Avx512 => Isa::Avx512,
        Kernels::Avx512Bf16 => Isa::Avx512Bf16,
    });
}
