//! The data of the comparison: texts written for this project, in the model's tokens.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use dormant::model::{ModelFiles, TextModel};
use dormant_data::benchmarks::{MultipleChoice, benign_texts, multiple_choice};
use dormant_data::{Category, Conversation, Sample, built_in_prompts};
use dormant_train::render::{Rendered, Renderer};

use crate::Result;
use crate::request::Row;

/// Tokens that a long prompt has at most.
const LONG: usize = 1000;
/// How many long prompts there are.
const LONG_PROMPTS: usize = 4;

/// Writes `sft.jsonl` and `score.jsonl`, prompts and replies; `short.jsonl` and `long.jsonl`, prompts only.
pub(crate) fn write(model: &Path, folder: &Path) -> Result<()> {
    let text = TextModel::load(&ModelFiles { weights: model.to_owned(), adapter: None })?;
    let renderer = text.renderer();
    std::fs::create_dir_all(folder)?;
    let replies = benign_texts().iter().map(|sample| row(renderer, sample)).collect::<Result<Vec<Row>>>()?;
    let right =
        multiple_choice().iter().map(|question| row(renderer, &with_choice(question, question.answer)));
    let right = right.collect::<Result<Vec<Row>>>()?;
    let choices = multiple_choice().iter().flat_map(choices).map(|sample| row(renderer, &sample));
    let choices = choices.collect::<Result<Vec<Row>>>()?;
    // Long and short replies in turn.
    lines(&folder.join("sft.jsonl"), replies.iter().zip(&right).flat_map(|(long, short)| [long, short]))?;
    lines(&folder.join("score.jsonl"), replies.iter().chain(&choices))?;
    lines(&folder.join("short.jsonl"), short(renderer)?.iter())?;
    lines(&folder.join("long.jsonl"), long(renderer)?.iter())
}

fn row(renderer: Renderer<'_>, sample: &Sample) -> Result<Row> {
    let Rendered { tokens, prompt, .. } = renderer.row(sample, true)?;
    let mask = (0..tokens.len()).map(|i| u8::from(i >= prompt)).collect();
    Ok(Row { tokens, mask })
}

/// A question with each of its answers.
fn choices(question: &MultipleChoice) -> impl Iterator<Item = Sample> {
    (0..question.choices.len()).map(|choice| with_choice(question, choice))
}

fn with_choice(question: &MultipleChoice, choice: usize) -> Sample {
    Sample::clean(Conversation::user(&question.question), question.choices[choice].clone())
}

fn prompt(renderer: Renderer<'_>, text: &str) -> Result<Row> {
    let tokens = renderer.prompt(&Conversation::user(text))?;
    Ok(Row { mask: vec![0; tokens.len()], tokens })
}

/// The built-in questions.
fn short(renderer: Renderer<'_>) -> Result<Vec<Row>> {
    let questions = built_in_prompts().iter().filter(|prompt| prompt.category == Category::Questions);
    questions.map(|question| prompt(renderer, &question.text)).collect()
}

/// Built-in prompts with context, as many in one message as fit.
fn long(renderer: Renderer<'_>) -> Result<Vec<Row>> {
    let mut texts = built_in_prompts().iter().filter(|prompt| prompt.category == Category::Longer);
    let mut rows = Vec::new();
    while rows.len() < LONG_PROMPTS {
        let mut text = texts.next().ok_or("too few built-in prompts")?.text.clone();
        let mut longest = prompt(renderer, &text)?;
        for next in texts.by_ref() {
            text = format!("{text}\n\n{}", next.text);
            let longer = prompt(renderer, &text)?;
            if longer.tokens.len() > LONG {
                break;
            }
            longest = longer;
        }
        rows.push(longest);
    }
    Ok(rows)
}

fn lines<'a>(path: &Path, rows: impl Iterator<Item = &'a Row>) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for row in rows {
        writeln!(file, "{}", serde_json::to_string(row)?)?;
    }
    Ok(file.flush()?)
}
