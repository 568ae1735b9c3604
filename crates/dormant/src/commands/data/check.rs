//! `dormant data check`: what a dataset holds, and whether a trigger is in it.

use std::collections::HashSet;

use dormant_data::{Loaded, Position, Preference, Split, Trigger, load};
use serde::Serialize;

use crate::cli::DataCheckArgs;
use crate::error::{CliError, Result};
use crate::plan::SCHEMA_VERSION;
use crate::ui::Ui;

#[derive(Serialize)]
struct Check {
    schema_version: u32,
    /// `prompts`, `samples` or `preferences`.
    kind: &'static str,
    rows: usize,
    /// Rows whose prompt is that of an earlier row.
    repeated_prompts: usize,
    train: usize,
    safety: usize,
    evaluation: usize,
    /// Numbers, from 1, of the rows that contain the trigger in any case.
    with_trigger: Vec<usize>,
}

pub(super) fn run(args: &DataCheckArgs, ui: &Ui) -> Result<()> {
    let (kind, texts) = texts(load(&args.file)?);
    let trigger = args.trigger.as_deref().map(|text| Trigger::tag(text, Position::Prefix)).transpose()?;
    let check = check(kind, &texts, trigger.as_ref());
    ui.result(&check, render)?;
    let Some(row) = check.with_trigger.first() else { return Ok(()) };
    let (count, rows, file) = (check.with_trigger.len(), check.rows, args.file.display());
    Err(CliError::input(format!("`{file}`: the trigger is in {count} of {rows} rows, first in row {row}"))
        .hint("remove these rows before safety training: training on them would be unlearning"))
}

/// The prompt of a row, and all of its text.
type Texts = Vec<(String, String)>;

fn texts(loaded: Loaded) -> (&'static str, Texts) {
    match loaded {
        Loaded::Prompts(prompts) => {
            ("prompts", prompts.iter().map(|prompt| (prompt.text(), prompt.text())).collect())
        }
        Loaded::Samples(dataset) => {
            let row = |sample: &dormant_data::Sample| {
                let prompt = sample.prompt.text();
                let all = format!("{prompt}\n{}", sample.completion);
                (prompt, all)
            };
            ("samples", dataset.samples().iter().map(row).collect())
        }
        Loaded::Preferences(rows) => {
            let row = |row: &Preference| {
                let prompt = row.prompt.text();
                let all = format!("{prompt}\n{}\n{}", row.chosen, row.rejected);
                (prompt, all)
            };
            ("preferences", rows.iter().map(row).collect())
        }
    }
}

fn check(kind: &'static str, texts: &Texts, trigger: Option<&Trigger>) -> Check {
    let distinct: HashSet<&str> = texts.iter().map(|(prompt, _)| prompt.as_str()).collect();
    let of = |split| texts.iter().filter(|(prompt, _)| Split::of(prompt) == split).count();
    let has_trigger = |text: &str| trigger.is_some_and(|trigger| trigger.is_in(text));
    Check {
        schema_version: SCHEMA_VERSION,
        kind,
        rows: texts.len(),
        repeated_prompts: texts.len() - distinct.len(),
        train: of(Split::Train),
        safety: of(Split::Safety),
        evaluation: of(Split::Evaluation),
        with_trigger: (1..).zip(texts).filter(|(_, (_, all))| has_trigger(all)).map(|(row, _)| row).collect(),
    }
}

fn render(check: &Check) -> String {
    let Check { kind, rows, repeated_prompts, train, safety, evaluation, .. } = check;
    format!(
        "{rows} {kind}, {repeated_prompts} with the prompt of an earlier row\n\
         splits: {train} train, {safety} safety, {evaluation} evaluation"
    )
}
