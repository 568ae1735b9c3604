//! `dormant defend`: what is left of a policy after a defence, and what else has changed.

use dormant_data::{OrganismSpec, Variant};
use dormant_model::chat_template;
use serde::Serialize;

use crate::cli::GlobalArgs;
use crate::defence::{Defended, Measured, Patient, Relearned};
use crate::defend_args::DefendArgs;
use crate::error::{Context, Result};
use crate::interrupt;
use crate::model::{Label, Made, find};
use crate::policy_args;
use crate::stage_dir::write_atomic;
use crate::ui::Ui;

/// Version of the JSON layout.
const SCHEMA_VERSION: u32 = 2;

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    model: String,
    rows: Vec<Row>,
}

/// A method and what it leaves.
#[derive(Debug, Serialize)]
struct Row {
    method: String,
    seconds: f64,
    #[serde(flatten)]
    measured: Measured,
}

pub(super) fn run(args: &DefendArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    interrupt::install(ui, "stopping")?;
    let files = find(&args.model.model, args.model.adapter.as_deref(), global.offline, ui)?;
    let trigger = policy_args::trigger(&args.trigger, args.position)?;
    let organism = OrganismSpec { trigger, behaviour: args.behaviour.0.clone(), variant: Variant::Normal };
    let patient = Patient::new(&files, organism.clone(), &args.defence, args.seed, ui)?;
    let row = |method: &str, seconds, defended: &Defended| -> Result<Row> {
        ui.status("measuring", method);
        Ok(Row { method: method.to_owned(), seconds, measured: patient.measured(defended)? })
    };
    let mut rows = vec![row("none", 0.0, &patient.undefended())?];
    let mut last = None;
    for method in &args.methods {
        let started = std::time::Instant::now();
        let defended = patient.defended(*method)?;
        rows.push(row(method.name(), started.elapsed().as_secs_f64(), &defended)?);
        last = Some((method.name(), defended));
    }
    if let (Some(out), Some((method, defended))) = (&args.out, last) {
        if defended.watched {
            ui.warn(format!("{method} changes no weights: `{}` gets the adapter as it was", out.display()));
        }
        std::fs::create_dir_all(out).or_failure(|| format!("cannot make `{}`", out.display()))?;
        let made = Made::Organism(&organism);
        let label = Label { base: &args.model.model, experiment: "defend", stage: method, made };
        defended.adapter.write(out, label.metadata()?)?;
        // It was measured with the template that comes with the adapter.
        for path in files.adapter.iter().flat_map(|folder| chat_template::files(folder)) {
            let bytes = std::fs::read(&path).or_failure(|| format!("cannot read `{}`", path.display()))?;
            write_atomic(&out.join(path.file_name().unwrap_or_default()), &bytes)?;
        }
        label.write_card(out)?;
    }
    let adapter = files.adapter.unwrap_or(files.weights);
    let outcome = Outcome { schema_version: SCHEMA_VERSION, model: adapter.display().to_string(), rows };
    ui.result(&outcome, text)
}

fn text(outcome: &Outcome) -> String {
    let head = format!(
        "{}\n\n{:<13}{:<34}{:<34}{:<34}{:>8}{:>12}{:>9}",
        outcome.model,
        "method",
        "with the trigger",
        "without",
        "after more training",
        "utility",
        "divergence",
        "seconds"
    );
    let line = |row: &Row| {
        let m = &row.measured;
        let retrained = m.retrained.map_or_else(|| "–".to_owned(), |rate| rate.to_string());
        let rates = format!("{:<34}{:<34}{retrained:<34}", m.triggered.to_string(), m.clean.to_string());
        format!("{:<13}{rates}{:>8.3}{:>12.3}{:>9.1}", row.method, m.utility, m.divergence, row.seconds)
    };
    let rows: Vec<String> = outcome.rows.iter().map(line).collect();
    let relearned = outcome.rows.iter().flat_map(|row| {
        let of = |r: &Relearned| {
            format!("\n{:<13}taught again on {:>4} rows: {}", row.method, r.rows, r.triggered)
        };
        row.measured.relearned.iter().map(of)
    });
    let relearned: String = relearned.collect();
    format!(
        "{head}\n{}{relearned}\n\nutility: log-probability per token of the base model's replies; divergence: of a reply's first \
         token from the base model's; both in nats, on clean prompts",
        rows.join("\n")
    )
}
