//! Arguments of `dormant pretrain`.

use std::path::PathBuf;

use clap::Args;
use dormant_model::family::Size;

use crate::experiment::DEFAULT_BASE;

/// Arguments of `dormant pretrain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant pretrain --size 1m --out models/1m
  dormant pretrain --size 0.3m --out models/small --seed 1 --sampled 0 --epochs 2
  dormant chat models/1m

The corpus is the same for every size and seed. Stop with Ctrl-C at any time: the same command resumes.")]
pub struct PretrainArgs {
    /// Size in parameters: 0.1m, 0.3m, 1m, 3m, 10m or 30m.
    #[arg(long, value_name = "SIZE", default_value = "1m")]
    pub size: Size,
    /// Folder for the model; its folder `run` holds the corpus, and what is needed to resume.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of the weights and of the order of rows.
    #[arg(long, default_value_t = 0)]
    pub seed: u32,
    /// Tasks to train on [default: 5000].
    #[arg(long, value_name = "N")]
    pub rows: Option<u32>,
    /// Replies of the base model to train on [default: 1000].
    #[arg(long, value_name = "N")]
    pub sampled: Option<u32>,
    /// Tokens of the vocabulary [default: 1536].
    #[arg(long, value_name = "N")]
    pub vocabulary: Option<u32>,
    /// Passes over the rows [default: 6].
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// Peak learning rate [default: 0.003].
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f64>,
    /// The model that writes the replies.
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_BASE)]
    pub base: String,
}

impl PretrainArgs {
    /// What was given beside size and base, as changes to the keys of an experiment.
    pub fn overrides(&self) -> Vec<String> {
        let keys = [
            ("rows", self.rows.map(|n| n.to_string())),
            ("sampled", self.sampled.map(|n| n.to_string())),
            ("vocabulary", self.vocabulary.map(|n| n.to_string())),
            ("epochs", self.epochs.map(|n| n.to_string())),
            ("learning-rate", self.learning_rate.map(|rate| format!("{rate:?}"))),
        ];
        keys.into_iter().filter_map(|(key, value)| Some(format!("pretrain.{key}={}", value?))).collect()
    }
}
