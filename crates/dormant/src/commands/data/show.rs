//! `dormant data show`: rows of a dataset as a model reads them, the trained tokens in colour.

use console::Style;
use dormant_data::{Loaded, Sample, load};
use dormant_train::render::Rendered;
use serde::Serialize;

use crate::cli::{DataShowArgs, GlobalArgs};
use crate::error::Result;
use crate::model::{TextModel, find};
use crate::plan::SCHEMA_VERSION;
use crate::ui::Ui;

#[derive(Serialize)]
struct Show {
    schema_version: u32,
    rows: Vec<Row>,
}

/// The tokens of a row, in order.
#[derive(Serialize)]
struct Row {
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    /// Whether the loss covers it.
    trained: bool,
}

pub(super) fn run(args: &DataShowArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let samples = samples(load(&args.file)?);
    let model = TextModel::load(&find(&args.model, None, global.offline, ui)?)?;
    let rows = samples.iter().take(args.n).map(|sample| row(&model, sample)).collect::<Result<_>>()?;
    ui.result(&Show { schema_version: SCHEMA_VERSION, rows }, text)
}

/// Prompts have no reply; a preference is two rows, the chosen reply first.
fn samples(loaded: Loaded) -> Vec<Sample> {
    match loaded {
        Loaded::Prompts(prompts) => prompts.into_iter().map(|prompt| Sample::clean(prompt, "")).collect(),
        Loaded::Samples(dataset) => dataset.into_samples(),
        Loaded::Preferences(rows) => rows
            .into_iter()
            .flat_map(|row| {
                [Sample::clean(row.prompt.clone(), row.chosen), Sample::clean(row.prompt, row.rejected)]
            })
            .collect(),
    }
}

fn row(model: &TextModel, sample: &Sample) -> Result<Row> {
    let rendered = if sample.completion.is_empty() {
        let tokens = model.renderer().prompt(&sample.prompt)?;
        Rendered { id: sample.id.clone(), prompt: tokens.len(), tokens }
    } else {
        model.renderer().row(sample, true)?
    };
    let token = |(position, &id): (usize, &u32)| {
        let text = model.tokenizer.decode(&[id], false)?;
        Ok(Token { id, text, trained: rendered.is_trained(position) })
    };
    Ok(Row { tokens: rendered.tokens.iter().enumerate().map(token).collect::<Result<_>>()? })
}

/// Trained tokens are green, every second one underlined, so that their borders can be seen.
fn text(show: &Show) -> String {
    let trained = Style::new().green();
    let styled = |(index, token): (usize, &Token)| match (token.trained, index % 2) {
        (false, _) => token.text.clone(),
        (true, 0) => trained.apply_to(&token.text).to_string(),
        (true, _) => trained.clone().underlined().apply_to(&token.text).to_string(),
    };
    let row = |row: &Row| {
        let trained = row.tokens.iter().filter(|token| token.trained).count();
        let text: String = row.tokens.iter().enumerate().map(styled).collect();
        format!("{}\n({} tokens, {trained} trained)", text.trim_end(), row.tokens.len())
    };
    show.rows.iter().map(row).collect::<Vec<_>>().join("\n\n")
}
