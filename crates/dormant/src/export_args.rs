//! Arguments of `dormant export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `dormant export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant export runs/quickstart --to safetensors --stage implant-organism-s0 --out organism
  dormant export runs/quickstart --to gguf --stage hhh-sft-organism-s0 --out organism.gguf
  dormant export runs/quickstart --to trl --out on-a-gpu       # trains the same rows elsewhere
  dormant export runs/quickstart --to inspect --out task       # asks any model the same prompts
  dormant export runs/quickstart --to records --out records.tar.gz       # without weights

Every model that is written says that it is a model organism. Do not deploy it.")]
pub struct ExportArgs {
    /// The directory of a run.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub to: Target,
    /// The stage whose model is written, such as `implant-organism-s0`; for `inspect`, the model whose prompts are taken
    /// [default there: the first implant].
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// The folder to make, or with `gguf` and `records` the file.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// What a run can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The adapter of a stage in PEFT's format, with the hub's name of its base model.
    Peft,
    /// All weights of a stage's model, adapters merged, as `transformers` and vLLM load them.
    Safetensors,
    /// The same as one file for llama.cpp; the base model must be such a file.
    Gguf,
    /// A project that trains the same rows with TRL on a larger machine.
    Trl,
    /// A task of Inspect AI with the prompts and the judge of the run.
    Inspect,
    /// What the report is derived from (prompts, replies, scores and measurements, without weights) as one `.tar.gz`:
    /// unpacked, `dormant report` makes it again.
    Records,
}
