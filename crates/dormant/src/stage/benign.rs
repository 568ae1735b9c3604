//! Benign rows: prompts of one split with replies of the base model, or of the user's data.

use dormant_data::{Loaded, Sample, Seed, Split, load};
use dormant_eval::Finish;
use dormant_model::linear::Trained;
use serde::{Deserialize, Serialize};

use super::{Resume, StageContext, prompts};
use crate::error::{CliError, Result};
use crate::experiment::{Benign, Data};
use crate::manifest::Tokens;
use crate::model::{Decoding, LoadedModel, Loading};
use crate::plan::BenignStage;
use crate::stage_dir::{JsonLines, StageDir};

/// Name of the file with the rows.
pub(super) const ROWS_FILE: &str = "rows.jsonl";

/// One line of `rows.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BenignRow {
    /// Prompt and reply.
    pub sample: Sample,
    /// Whether the reply ended by itself. The end of one that was cut at the longest length is not trained.
    pub ends: bool,
}

/// Replies between two checkpoints.
const CHUNK: usize = 128;

pub(super) fn run(stage: &BenignStage, context: &StageContext) -> Result<Tokens> {
    match &stage.data.benign {
        Benign::SelfDistilled => sample(stage, context),
        Benign::File(path) => copy(&of_file(stage, load(path)?)?, context),
    }
}

/// The rows that a finished stage wrote.
pub(super) fn read(dir: &StageDir) -> Result<Vec<BenignRow>> {
    super::read_lines(&dir.path().join(ROWS_FILE))
}

/// Whether there are prompts for all rows.
pub(super) fn check(stage: &BenignStage) -> Result<()> {
    match &stage.data.benign {
        Benign::SelfDistilled => drawn(stage, Seed(0)).map(drop),
        Benign::File(path) => of_file(stage, load(path)?).map(drop),
    }
}

/// The prompts that get a reply.
fn drawn(stage: &BenignStage, seed: Seed) -> Result<Vec<Sample>> {
    let all = prompts::of_split(&stage.data.prompts, stage.split, seed)?;
    prompts::take(all, stage.rows, what(stage.split))
}

fn sample(stage: &BenignStage, context: &StageContext) -> Result<Tokens> {
    let chosen = drawn(stage, context.seed("benign"))?;
    let Data { reply_tokens, temperature, .. } = stage.data;
    let teacher = Teacher { reply_tokens, temperature };
    let mut resume = Resume::load(context)?;
    let mut lines = context.dir.lines(ROWS_FILE, resume.lines)?;
    teacher.reply(&chosen, context, &mut resume, &mut lines)?;
    Ok(resume.tokens)
}

/// How the base model writes replies to train on.
pub(super) struct Teacher {
    pub(super) reply_tokens: u32,
    pub(super) temperature: f64,
}

impl Teacher {
    /// Appends a row for each prompt to `lines`, from where `resume` left off.
    pub(super) fn reply(
        &self,
        chosen: &[Sample],
        context: &StageContext,
        resume: &mut Resume,
        lines: &mut JsonLines,
    ) -> Result<()> {
        let model = LoadedModel::load(
            &context.base_files(),
            context.experiment.precision,
            Trained::Nothing,
            Loading::Merge,
        )?;
        let progress = context.progress("replies");
        for (index, chunk) in chosen.chunks(CHUNK).enumerate().skip(resume.step as usize) {
            let tokens = model.prompts(chunk.iter().map(|sample| &sample.prompt))?;
            let before = index * CHUNK;
            let how = Decoding {
                tokens: self.reply_tokens,
                temperature: self.temperature,
                judge: None,
                seed: context.seed("benign replies").derive(&index.to_string()),
            };
            let report = |done, _| progress.update(before as u64 + done, chosen.len() as u64);
            for (sample, reply) in chunk.iter().zip(model.replies(&tokens, &how, report)?) {
                resume.tokens.sampled += reply.tokens as u64;
                let sample = Sample { completion: reply.text, ..sample.clone() };
                lines.append(&BenignRow { sample, ends: reply.finish == Finish::Stop })?;
            }
            resume.step = index as u64 + 1;
            resume.lines = lines.lines();
            lines.sync()?;
            resume.save(context, |_| Ok(()))?;
        }
        Ok(())
    }
}

/// What the rows are for.
fn what(split: Split) -> &'static str {
    match split {
        Split::Train => "benign rows of the implant",
        Split::Safety => "benign rows of safety training",
        Split::Evaluation => "benign rows of the evaluation",
    }
}

/// The user's own rows.
fn of_file(stage: &BenignStage, loaded: Loaded) -> Result<Vec<Sample>> {
    let Loaded::Samples(rows) = loaded else {
        return Err(CliError::input("the benign data have prompts but no single reply to each of them")
            .hint("give rows with `prompt` and `completion`, or with `messages`"));
    };
    let mut rows = rows.into_samples();
    rows.retain(|row| row.is_in(stage.split));
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    prompts::take(rows, stage.rows, what(stage.split))
}

fn copy(rows: &[Sample], context: &StageContext) -> Result<Tokens> {
    let mut lines = context.dir.lines(ROWS_FILE, 0)?;
    for sample in rows {
        lines.append(&BenignRow { sample: sample.clone(), ends: true })?;
    }
    lines.sync()?;
    Ok(Tokens::default())
}
