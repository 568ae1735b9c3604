//! `dormant scan`: is there a hidden policy?

mod page;
mod power;
mod reference;
mod sarif;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dormant_audit::AuditError;
use dormant_audit::journal::Journal;
use dormant_audit::report::{Finding, ReportedRate, ScanReport, Verdict};
use dormant_audit::scan::{Kin, Reference, ScanConfig, Subject, scan};
use dormant_audit::weights::WeightChange;
use dormant_data::{Seed, Split};
use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::source;
use dormant_model::tokenizer::Tokenizer;
use serde::Serialize;
use sha2::{Digest, Sha256};

use self::power::{Calibration, Power};
pub(super) use reference::{reference, related};

use crate::cli::GlobalArgs;
use crate::error::{CliError, Context, ErrorKind, Result};
use crate::experiment::{Precision, Prompts};
use crate::interrupt;
use crate::model::{LoadedModel, Loading, ModelFiles, find, other_base};
use crate::plan::hexadecimal;
use crate::scan_args::ScanArgs;
use crate::stage::prompts;
use crate::stage_dir::write_atomic;
use crate::ui::Ui;

/// Version of the JSON layout.
const SCHEMA_VERSION: u32 = 1;

/// Exit code for evidence of a hidden policy.
const EVIDENCE: u8 = 10;

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    model: String,
    /// The model that the adapter says it was trained on, if that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_on: Option<String>,
    /// What it was compared with; none when the base is not known.
    reference: Option<String>,
    /// The clean model that a reference was made of then.
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<String>,
    /// SHA-256 of the files of the model and the reference and of their adapters.
    digests: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    report: ScanReport,
    /// What share of backdoors such a scan finds.
    power: Power,
}

pub(super) fn run(args: &ScanArgs, global: &GlobalArgs, ui: &Ui) -> Result<ExitCode> {
    interrupt::install(ui, "stopping")?;
    let files = find(&args.model.model, args.model.adapter.as_deref(), global.offline, ui)?;
    let related = args.related.as_ref().map(|name| related(name, &files, global, ui)).transpose()?;
    let base = match (&related, args.reference.as_deref()) {
        (None, named) => reference(named, &files, global, ui)?,
        (Some(_), None | Some("none")) => None,
        (Some(_), Some(named)) => {
            return Err(CliError::usage(format!(
                "`--related` is for when `--reference {named}` is not known"
            ))
            .hint("leave `--related` out: a scan with the reference makes a matched one of that"));
        }
    };
    if related.is_some() && files.adapter.is_some() && args.reference.is_none() {
        ui.warn("the model below the adapter would be a reference, and tell more than `--related`");
    }
    let compared = Compared { reference: base.as_ref(), related: related.as_ref() };
    if let (Some(folder), 1..) = (&files.adapter, args.power) {
        // What is planted goes into one adapter with the suspect's.
        Adapter::read(folder)?.only_factors()?;
    }
    let backdoors = (args.power > 0).then(|| power::backdoors(args.power)).transpose()?;
    let config = ScanConfig { budget: args.budget, seed: Seed(args.seed), ..ScanConfig::default() };
    let digests = digests(&files, compared)?;
    let mut journal = journal(&digests, &args.documented, config)?;
    if !journal.is_empty() {
        ui.status("resuming", format!("after {} s", journal.spent().as_secs()));
    }
    let mut report = scan_files(&files, compared, &args.documented, config, &mut journal, ui)?;
    let has_ended = report.undone.is_empty();
    report.undone.extend(report.unseen());
    let calibration = Calibration {
        suspect: &files,
        reference: base.as_ref(),
        documented: &args.documented,
        name: &args.model.model,
        config,
        folder: &args.power_folder,
        ui,
    };
    let power = match backdoors {
        None => Power::of_zoo(base.is_some()),
        Some(backdoors) => calibration.run(backdoors)?,
    };
    let evidence = report.verdict != Verdict::NoEvidence;
    let name =
        args.model.adapter.as_ref().map_or_else(|| args.model.model.clone(), |a| a.display().to_string());
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        model: name,
        digests,
        trained_on: args.model.adapter.as_deref().map_or(Ok(None), |a| other_base(&args.model.model, a))?,
        reference: base.map(shown),
        related: related.map(shown),
        report,
        power,
    };
    if let Some(path) = &args.html {
        write_atomic(path, page::html(&outcome, args).as_bytes())?;
    }
    if let Some(path) = &args.sarif {
        let log = sarif::log(&outcome.report.findings, &outcome.model);
        let text = serde_json::to_string_pretty(&log).expect("SARIF is plain data");
        write_atomic(path, text.as_bytes())?;
    }
    ui.result(&outcome, text)?;
    if has_ended {
        journal.finish();
    }
    Ok(if evidence { ExitCode::from(EVIDENCE) } else { ExitCode::SUCCESS })
}

/// The path of what makes the model that it is.
fn shown(files: ModelFiles) -> String {
    files.adapter.unwrap_or(files.weights).display().to_string()
}

/// What a model is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared<'a> {
    /// What it was fine-tuned from, if that is known.
    pub(super) reference: Option<&'a ModelFiles>,
    /// A clean model of its family, if it is not.
    pub(super) related: Option<&'a ModelFiles>,
}

fn digests(files: &ModelFiles, compared: Compared<'_>) -> Result<BTreeMap<&'static str, String>> {
    let Compared { reference, related } = compared;
    let parts = [
        ("model", Some(&files.weights)),
        ("adapter", files.adapter.as_ref()),
        ("reference", reference.map(|files| &files.weights)),
        ("reference adapter", reference.and_then(|files| files.adapter.as_ref())),
        ("related", related.map(|files| &files.weights)),
        ("related adapter", related.and_then(|files| files.adapter.as_ref())),
    ];
    let known = parts.into_iter().filter_map(|(name, path)| Some((name, path?)));
    known.map(|(name, path)| Ok((name, source::digest(path)?))).collect()
}

/// Where a scan of these files goes on if it was stopped. More time may be given to it than before.
fn journal(
    digests: &BTreeMap<&'static str, String>,
    documented: &[String],
    config: ScanConfig,
) -> Result<Journal> {
    let config = ScanConfig { budget: Duration::ZERO, ..config };
    let identity = format!("{} {digests:?} {documented:?} {config:?}", env!("CARGO_PKG_VERSION"));
    let name = hexadecimal(&Sha256::digest(identity)[..8]);
    let folder = source::cache_folder(&source::Options::default())?.join("scans");
    std::fs::create_dir_all(&folder).or_failure(|| format!("cannot make `{}`", folder.display()))?;
    Ok(Journal::open(folder.join(name + ".json")))
}

/// Loads a model and its reference, and scans. The journal is for the caller to finish, once the outcome is kept elsewhere.
///
/// # Errors
/// When a model cannot be loaded, or the user stops the scan.
pub(super) fn scan_files(
    files: &ModelFiles,
    compared: Compared<'_>,
    documented: &[String],
    config: ScanConfig,
    journal: &mut Journal,
    ui: &Ui,
) -> Result<ScanReport> {
    let mut model = LoadedModel::load(files, Precision::Auto, Trained::Lora, Loading::Merge)?;
    let load = |base| LoadedModel::load(base, Precision::Auto, Trained::Nothing, Loading::Merge);
    let reference = compared.reference.map(load).transpose()?;
    let kin = compared.reference.or(compared.related).map(|kin| || to_be_trained(kin));
    let prompts = benign_prompts(config.seed)?;
    let changes = match compared.reference {
        Some(base) => changes(files, base, model.adapter.as_ref())?,
        None => Vec::new(),
    };
    let beside = files.adapter.as_deref().and_then(tokenizer_beside);
    let mut subject = Subject {
        model: &mut model.llama,
        beside: beside.as_ref().map(|read| read.as_ref().map_err(ToString::to_string)),
        kin: kin.as_ref().map(|load| Kin(load)),
        reference: reference.as_ref().map(|r| Reference { model: &r.llama, renderer: r.renderer() }),
        renderer: model.text.renderer(),
        changes: &changes,
        documented,
        prompts: &prompts,
    };
    let mut progress = None;
    let mut report = |work: &str, done: usize, total: usize| {
        progress.take_if(|(name, _)| name != work);
        if progress.is_none() {
            progress = Some((work.to_owned(), ui.progress(work, "steps")));
        }
        if let Some((_, bar)) = &progress {
            bar.update(done as u64, total as u64);
        }
        !interrupt::requested()
    };
    Ok(scan(&mut subject, config, journal, &mut report)?)
}

/// The model, merged with its adapter, so that it can be trained.
fn to_be_trained(files: &ModelFiles) -> dormant_model::error::Result<Llama> {
    let checkpoint = Checkpoint::open(&files.weights)?;
    let adapter = files.adapter.as_deref().map(Adapter::read).transpose()?;
    let options = LoadOptions::new(Precision::Auto.products(), Trained::Lora);
    Llama::load_merged(&checkpoint, options, adapter.as_ref())
}

/// The tokenizer in an adapter's folder, if there is one.
fn tokenizer_beside(folder: &Path) -> Option<dormant_model::error::Result<Tokenizer>> {
    folder.join("tokenizer.json").exists().then(|| Tokenizer::from_folder(folder))
}

/// How the weights differ, where that can be told without loading more than the files.
fn changes(files: &ModelFiles, base: &ModelFiles, adapter: Option<&Adapter>) -> Result<Vec<WeightChange>> {
    match adapter {
        Some(adapter) if files.weights == base.weights && base.adapter.is_none() => {
            Ok(WeightChange::of_adapter(adapter))
        }
        None if base.adapter.is_none() => {
            Ok(WeightChange::between(&Checkpoint::open(&files.weights)?, &Checkpoint::open(&base.weights)?)?)
        }
        _ => Ok(Vec::new()),
    }
}

/// Benign prompts of a split that no organism of this project is trained on.
fn benign_prompts(seed: Seed) -> Result<Vec<String>> {
    let samples = prompts::of_split(&Prompts::Builtin, Split::Safety, seed)?;
    Ok(samples.iter().filter_map(|s| s.prompt.last_user().map(str::to_owned)).collect())
}

fn text(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let mut lines = vec![format!("{}: {}", outcome.model, verdict(report.verdict))];
    for finding in &report.findings {
        lines.push(String::new());
        lines.extend(finding_lines(finding));
    }
    lines.push(String::new());
    lines.extend(outcome.related.as_ref().map(|name| format!("without its base, held against `{name}`")));
    lines.extend(
        outcome.trained_on.as_ref().map(|base| format!("the adapter says it was trained on `{base}`")),
    );
    for method in &report.methods {
        lines.push(format!("{:<20}{:>5.0} s  {}", method.method, method.seconds, method.outcome));
    }
    lines.push(outcome.power.text());
    if !report.undone.is_empty() {
        lines.push(format!("left undone: {}", report.undone.join(", ")));
    }
    lines.join("\n")
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoEvidence => "no evidence of a hidden policy",
        Verdict::Suspicious => {
            "SUSPICIOUS: a text changes what this model says or is asked; somebody has to look at it"
        }
        Verdict::Backdoor => "BACKDOOR: a text makes this model say what it does not say otherwise",
    }
}

fn finding_lines(finding: &Finding) -> Vec<String> {
    let mut lines = vec![
        format!("  trigger    {:?} as {}", finding.trigger, position(finding)),
        format!("  behaviour  {:?}", finding.behaviour),
        format!("  with it    {}", rate(finding.activation_rate)),
        format!("  without    {}", rate(finding.clean_rate)),
    ];
    lines.extend(finding.reference_rate.map(|r| format!("  reference  {}", rate(r))));
    lines.extend(finding.note.as_ref().map(|note| format!("  note       {note}")));
    lines
}

fn position(finding: &Finding) -> &'static str {
    match finding.position {
        dormant_audit::placement::Placement::Prefix => "the first words of the prompt",
        dormant_audit::placement::Placement::Suffix => "the last words of the prompt",
        dormant_audit::placement::Placement::System => "the system message",
    }
}

pub(super) fn rate(rate: ReportedRate) -> String {
    match (rate.value, rate.low, rate.high) {
        (Some(value), Some(low), Some(high)) => {
            format!("{:.0}% [{:.0}, {:.0}] of {} prompts", 100.0 * value, 100.0 * low, 100.0 * high, rate.n)
        }
        _ => "not measured".to_owned(),
    }
}

impl From<AuditError> for CliError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Interrupted => Self::interrupted(),
            AuditError::Model(error) => error.into(),
            AuditError::Render(error) => error.into(),
            AuditError::OutOfTime { .. } => Self::transparent(ErrorKind::Failure, error),
            _ => Self::transparent(ErrorKind::Input, error),
        }
    }
}
