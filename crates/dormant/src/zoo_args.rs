//! Arguments of `dormant zoo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::defend_args::{DefenceArgs, Method};
use crate::error::{Result, with_suggestion};
use crate::scan_args::budget;
use crate::zoo::{Entry, Purpose, Zoo};

/// The commands of `dormant zoo`.
#[derive(Debug, Subcommand)]
pub enum ZooCommand {
    /// Build the entries that are not there yet.
    Build(ZooArgs),
    /// List the entries.
    List(ZooArgs),
    /// Scan the built entries, and tell how many organisms were found and how many false alarms there were.
    Bench(ZooBenchArgs),
    /// Try defences on the built organisms; finished cells of the table are kept.
    Defend(ZooDefendArgs),
}

/// Arguments of `dormant zoo bench`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormant zoo bench --quick --purpose report --out results/audit")]
pub struct ZooBenchArgs {
    /// Which entries.
    #[command(flatten)]
    pub zoo: ZooArgs,
    /// Folder for one JSON file per scan, and the table.
    #[arg(long, value_name = "DIR", default_value = "results/audit")]
    pub out: PathBuf,
    /// Time for each scan.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = budget)]
    pub budget: Duration,
    /// Scan without the base model.
    #[arg(long)]
    pub no_reference: bool,
    /// Scan without the base model and with this clean model of the same family.
    #[arg(long, value_name = "MODEL", requires = "no_reference")]
    pub related: Option<String>,
    /// Scan entries again that were scanned before; the report keeps what their first scan said.
    #[arg(long)]
    pub again: bool,
    /// Seed of the scans.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Arguments of `dormant zoo defend`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dormant zoo defend --quick --seeds 3 --retrain 40 --out results/defences"
)]
pub struct ZooDefendArgs {
    /// Which entries.
    #[command(flatten)]
    pub zoo: ZooArgs,
    /// The methods.
    #[arg(
        long = "method",
        value_enum,
        value_delimiter = ',',
        default_value = "fine-tune,interpolate,project,crow,clean-gen"
    )]
    pub methods: Vec<Method>,
    /// How many seeds of prompts and training.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    /// How they work and are measured.
    #[command(flatten)]
    pub defence: DefenceArgs,
    /// Folder for one JSON file per cell, and the table.
    #[arg(long, value_name = "DIR", default_value = "results/defences")]
    pub out: PathBuf,
}

/// Arguments of the commands of `dormant zoo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormant zoo build --quick")]
pub struct ZooArgs {
    /// A zoo file [default: the one that is shipped with dormant].
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Folder that holds one folder per entry.
    #[arg(long, value_name = "DIR", default_value = "runs/zoo")]
    pub zoo: PathBuf,
    /// Only the small zoo.
    #[arg(long)]
    pub quick: bool,
    /// Only entries with this purpose.
    #[arg(long, value_enum)]
    pub purpose: Option<Purpose>,
    /// Only these entries.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
}

impl ZooArgs {
    /// The entries that the flags choose.
    ///
    /// # Errors
    /// When a name is no entry's.
    pub fn chosen<'a>(&self, zoo: &'a Zoo) -> Result<Vec<Entry<'a>>> {
        let known: Vec<String> = zoo.entries().map(|entry| entry.name().to_owned()).collect();
        if let Some(unknown) = self.only.iter().find(|name| !known.contains(name)) {
            return Err(with_suggestion(format!("the zoo has no entry `{unknown}`"), unknown, &known));
        }
        let is_chosen = |entry: &Entry<'_>| {
            (!self.quick || entry.quick())
                && self.purpose.is_none_or(|purpose| entry.purpose() == purpose)
                && (self.only.is_empty() || self.only.iter().any(|name| name == entry.name()))
        };
        Ok(zoo.entries().filter(is_chosen).collect())
    }
}
