//! Benign rows: prompts of one split with replies of the base model, or of the user's data.

use dormant_data::{Loaded, Sample, load};
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
        Benign::File(path) => from_file(stage, context, load(path)?),
    }
}

/// The rows that a finished stage wrote.
pub(super) fn read(dir: &StageDir) -> Result<Vec<BenignRow>> {
    super::read_lines(&dir.path().join(ROWS_FILE))
}

fn sample(stage: &BenignStage, context: &StageContext) -> Result<Tokens> {
    let all = prompts::of_split(&stage.data.prompts, stage.split, context.seed("benign"))?;
    let chosen = prompts::take(all, stage.rows, "benign rows")?;
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

fn from_file(stage: &BenignStage, context: &StageContext, loaded: Loaded) -> Result<Tokens> {
    let Loaded::Samples(rows) = loaded else {
        return Err(CliError::input("the benign data have prompts but no single reply to each of them")
            .hint("give rows with `prompt` and `completion`, or with `messages`"));
    };
    let mut rows = rows.into_samples();
    rows.retain(|row| row.is_in(stage.split));
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    let mut lines = context.dir.lines(ROWS_FILE, 0)?;
    for sample in prompts::take(rows, stage.rows, "benign rows")? {
        lines.append(&BenignRow { sample, ends: true })?;
    }
    lines.sync()?;
    Ok(Tokens::default())
}
