//! `dormant data show`: rows of a dataset, what is trained on in colour.

use console::Style;
use dormant_data::{Conversation, Loaded, load};
use serde::Serialize;

use crate::cli::DataShowArgs;
use crate::error::Result;
use crate::plan::SCHEMA_VERSION;
use crate::ui::Ui;

#[derive(Serialize)]
struct Show {
    schema_version: u32,
    rows: Vec<Row>,
}

/// One row: what is read, and what may be trained on.
#[derive(Serialize)]
struct Row {
    prompt: Conversation,
    replies: Vec<String>,
}

pub(super) fn run(args: &DataShowArgs, ui: &Ui) -> Result<()> {
    let mut rows = rows(load(&args.file)?);
    rows.truncate(args.n);
    ui.result(&Show { schema_version: SCHEMA_VERSION, rows }, render);
    Ok(())
}

fn rows(loaded: Loaded) -> Vec<Row> {
    match loaded {
        Loaded::Prompts(prompts) => {
            prompts.into_iter().map(|prompt| Row { prompt, replies: Vec::new() }).collect()
        }
        Loaded::Samples(dataset) => {
            let samples = dataset.into_samples().into_iter();
            samples.map(|sample| Row { prompt: sample.prompt, replies: vec![sample.completion] }).collect()
        }
        Loaded::Preferences(rows) => rows
            .into_iter()
            .map(|row| Row { prompt: row.prompt, replies: vec![row.chosen, row.rejected] })
            .collect(),
    }
}

fn render(show: &Show) -> String {
    let trained = Style::new().green();
    let row = |row: &Row| {
        let turns =
            row.prompt.messages().iter().map(|turn| format!("{}: {}", turn.role.as_str(), turn.content));
        let replies = row.replies.iter().map(|reply| format!("assistant: {}", trained.apply_to(reply)));
        turns.chain(replies).collect::<Vec<_>>().join("\n")
    };
    show.rows.iter().map(row).collect::<Vec<_>>().join("\n\n")
}
