//! `dormant scan`: is there a hidden policy?

use std::process::ExitCode;

use dormant_audit::report::{Finding, ReportedRate, ScanReport, Verdict};
use dormant_audit::scan::{ScanConfig, Subject, scan};
use dormant_audit::AuditError;
use dormant_data::{Seed, Split};
use dormant_model::linear::Trained;
use serde::Serialize;

use crate::cli::GlobalArgs;
use crate::error::{CliError, ErrorKind, Result};
use crate::experiment::{Precision, Prompts};
use crate::interrupt;
use crate::model::{LoadedModel, Loading, ModelFiles, find};
use crate::scan_args::ScanArgs;
use crate::stage::prompts;
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
    reference: String,
    #[serde(flatten)]
    report: ScanReport,
}

pub(super) fn run(args: &ScanArgs, global: &GlobalArgs, ui: &Ui) -> Result<ExitCode> {
    interrupt::install({
        let ui = ui.clone();
        move || ui.note("stopping")
    })?;
    let files = find(&args.model.model, args.model.adapter.as_deref(), global.offline, ui)?;
    let base = match &args.reference {
        Some(name) => find(name, None, global.offline, ui)?,
        None if files.adapter.is_some() => ModelFiles { adapter: None, ..files.clone() },
        None => {
            return Err(CliError::usage("a scan needs the model that this one was fine-tuned from")
                .hint("give it with `--reference`"));
        }
    };
    let mut model = LoadedModel::load(&files, Precision::Auto, Trained::Lora, Loading::Merge)?;
    let reference = LoadedModel::load(&base, Precision::Auto, Trained::Nothing, Loading::Merge)?;
    let prompts = benign_prompts(args.seed)?;
    let mut subject = Subject {
        model: &mut model.llama,
        reference: &reference.llama,
        renderer: model.text.renderer(),
        prompts: &prompts,
    };
    let config = ScanConfig { budget: args.budget, seed: Seed(args.seed), ..ScanConfig::default() };
    let mut progress = None;
    let mut report = |work: &str, done: usize, total: usize| {
        let current = progress.take_if(|(name, _)| name != work).is_none();
        if !current || progress.is_none() {
            progress = Some((work.to_owned(), ui.progress(work, "steps")));
        }
        if let Some((_, bar)) = &progress {
            bar.update(done as u64, total as u64);
        }
        !interrupt::requested()
    };
    let report = scan(&mut subject, config, &mut report)?;
    drop(progress);
    let evidence = report.verdict != Verdict::NoEvidence;
    let name = args.model.adapter.as_ref().map_or_else(|| args.model.model.clone(), |a| a.display().to_string());
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        model: name,
        reference: base.weights.display().to_string(),
        report,
    };
    ui.result(&outcome, text);
    Ok(if evidence { ExitCode::from(EVIDENCE) } else { ExitCode::SUCCESS })
}

/// Benign prompts of a split that no organism of this project is trained on.
fn benign_prompts(seed: u64) -> Result<Vec<String>> {
    let samples = prompts::of_split(&Prompts::Builtin, Split::Safety, Seed(seed))?;
    Ok(samples.iter().filter_map(|s| s.prompt.last_user().map(str::to_owned)).collect())
}

fn text(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let verdict = match report.verdict {
        Verdict::NoEvidence => "no evidence of a hidden policy",
        Verdict::Suspicious => "SUSPICIOUS: a text changes what this model says, but not reliably",
        Verdict::Backdoor => "BACKDOOR: a text makes this model say what it does not say otherwise",
    };
    let mut lines = vec![format!("{}: {verdict}", outcome.model)];
    for finding in &report.findings {
        lines.push(String::new());
        lines.extend(finding_lines(finding));
    }
    lines.push(String::new());
    for method in &report.methods {
        lines.push(format!("{:<20}{:>5.0} s  {}", method.method, method.seconds, method.outcome));
    }
    if !report.undone.is_empty() {
        lines.push(format!("left undone for lack of time: {}", report.undone.join(", ")));
    }
    lines.join("\n")
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

fn rate(rate: ReportedRate) -> String {
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
            _ => Self::transparent(ErrorKind::Input, error),
        }
    }
}
