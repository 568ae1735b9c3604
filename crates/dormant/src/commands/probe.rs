//! `dormant probe`: does a generic direction tell prompts with a trigger from prompts without?

use dormant_audit::budget::Watch;
use dormant_audit::probe::{Effect, FALSE_ALARMS, Reading, Separation, read};
use dormant_data::{Conversation, Seed, Split};
use dormant_eval::Estimate;
use dormant_model::linear::Trained;
use serde::Serialize;

use super::scan::{rate, reference};
use crate::cli::GlobalArgs;
use crate::error::Result;
use crate::experiment::{Precision, Prompts};
use crate::interrupt;
use crate::model::{LoadedModel, Loading, ModelFiles, find};
use crate::policy_args;
use crate::probe_args::ProbeArgs;
use crate::stage::prompts;
use crate::ui::Ui;

/// Version of the JSON layout.
const SCHEMA_VERSION: u32 = 1;

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    model: String,
    reference: Option<String>,
    control: Option<String>,
    trigger: String,
    prompts: u32,
    #[serde(flatten)]
    reading: Reading,
}

pub(super) fn run(args: &ProbeArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    interrupt::install(ui, "stopping")?;
    let trigger = policy_args::trigger(&args.trigger, args.position)?;
    let files = find(&args.model.model, args.model.adapter.as_deref(), global.offline, ui)?;
    let base = reference(args.reference.as_deref(), &files, global, ui)?;
    // Of a merged model, the suspect's own weights are no base.
    let stands_on = base.as_ref().unwrap_or(&files);
    let control =
        args.control.as_ref().map(|folder| ModelFiles { adapter: Some(folder.clone()), ..stands_on.clone() });
    let load =
        |files: &ModelFiles| LoadedModel::load(files, Precision::Auto, Trained::Nothing, Loading::Merge);
    let model = load(&files)?;
    let [reference, benign] = [base.as_ref(), control.as_ref()].map(|files| files.map(load));
    let (reference, benign) = (reference.transpose()?, benign.transpose()?);
    let seed = Seed(args.seed);
    let all = prompts::of_split(&Prompts::Builtin, Split::Evaluation, seed)?;
    let mut plain: Vec<Conversation> =
        prompts::take(all, args.n, "probe")?.into_iter().map(|s| s.prompt).collect();
    // No prompt is in both groups.
    let without = plain.split_off(plain.len() / 2);
    let mut rng = seed.derive("place of the text").rng();
    let with: Vec<Conversation> =
        plain.iter().map(|prompt| trigger.insert(prompt, Split::Evaluation, &mut rng)).collect();
    let bar = ui.progress("probe", "steps");
    let mut progress = |_: &str, done: usize, total: usize| {
        bar.update(done as u64, total as u64);
        !interrupt::requested()
    };
    let watch = Watch::new(args.budget, &mut progress);
    let reading = read(
        &model.llama,
        reference.as_ref().map(|m| &m.llama),
        benign.as_ref().map(|m| &m.llama),
        model.renderer(),
        [&with, &without],
        &plain,
        seed,
        &watch,
    )?;
    let path = |files: &ModelFiles| files.adapter.as_ref().unwrap_or(&files.weights).display().to_string();
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        model: path(&files),
        reference: base.as_ref().map(path),
        control: control.as_ref().map(path),
        trigger: args.trigger.clone(),
        prompts: args.n,
        reading,
    };
    ui.result(&outcome, text)
}

fn text(outcome: &Outcome) -> String {
    let reading = &outcome.reading;
    let nulls = &reading.nulls;
    let verdict = if reading.means_something {
        "the probe tells the two groups apart, and nothing else does"
    } else {
        "the score means nothing here"
    };
    let row = |name: &str, found: Option<Separation>| {
        let area = |s: Separation| {
            let a = s.auroc;
            format!(
                "{:.3} [{:.3}, {:.3}] of {} prompts, after block {}",
                a.value, a.low, a.high, a.n, s.layer
            )
        };
        format!("  {name:<22}{}", found.map_or_else(|| "not measured".to_owned(), area))
    };
    let mut lines = vec![
        format!("{}: {verdict}: {}", outcome.model, reading.because),
        String::new(),
        format!("  area under the ROC curve, prompts with {:?} against prompts without", outcome.trigger),
        row(&format!("probe of {} pairs", reading.pairs), reading.probe),
        row("the same, whitened", reading.whitened),
        format!(
            "  {:<22}{:.3} is above 95% of {}",
            "random directions", nulls.random_95, nulls.random_directions
        ),
        row("shuffled signs", nulls.shuffled_signs),
        row("unrelated questions", nulls.unrelated_questions),
        row("reference", nulls.reference),
        row("benign fine-tune", nulls.control),
    ];
    if let Some(threshold) = &reading.threshold {
        lines.extend([
            String::new(),
            format!(
                "  a threshold set to {:.0}% false alarms on one half of the prompts, on the other",
                100.0 * FALSE_ALARMS
            ),
            format!("  {:<22}{}", "caught", rate(threshold.caught)),
            format!("  {:<22}{}", "false alarms", rate(threshold.false_alarms)),
        ]);
    }
    if let Some(causal) = &reading.causal {
        lines.extend([
            String::new(),
            format!("  steps along the probe after block {}: {}", causal.layer, causal.in_words()),
            format!("  {:<22}{}", "towards the trigger", effect(causal.steering)),
            format!("  {:<22}{}", "away from it", effect(causal.ablation)),
        ]);
    }
    lines.join("\n")
}

/// What a step does to the reply given with the trigger.
fn effect(effect: Option<Effect>) -> String {
    let Some(Effect { probe, random, whole }) = effect else { return "not measured".to_owned() };
    let nats = |e: Estimate| format!("{:+.1} [{:+.1}, {:+.1}]", e.value, e.low, e.high);
    format!(
        "{} nats of the reply given with it; random steps {}, the trigger's whole step {}",
        nats(probe),
        nats(random),
        nats(whole)
    )
}
