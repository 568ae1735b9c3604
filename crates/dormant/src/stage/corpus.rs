//! What models from scratch are trained on: small tasks with their answers, and replies of the base model; and the
//! vocabulary that all of them share.

use dormant_data::{
    CorpusPart, Sample, Split, asking_for_scratchpad, corpus, scratchpad, with_neutral_scratchpad,
};
use dormant_model::chat_template::ChatTemplate;
use dormant_model::tokenizer::Tokenizer;
use rand::seq::SliceRandom;

use super::benign::{self, BenignRow, ROWS_FILE, Teacher};
use super::{Resume, StageContext, prompts};
use crate::error::Result;
use crate::experiment::Prompts;
use crate::manifest::Tokens;
use crate::plan::CorpusStage;
use crate::stage_dir::JsonLines;

/// The folder with the tokenizer and the chat template.
pub(super) const VOCABULARY: &str = "vocabulary";

pub(super) fn run(stage: &CorpusStage, context: &StageContext) -> Result<Tokens> {
    let mut resume = Resume::load(context)?;
    let mut lines = context.dir.lines(ROWS_FILE, resume.lines)?;
    let tasks = tasks(stage, context)?;
    if resume.lines == 0 {
        append(&tasks, &mut lines)?;
    }
    if stage.corpus.sampled > 0 {
        let all = prompts::of_split(&Prompts::Builtin, Split::Train, context.seed("sampled"))?;
        let chosen = prompts::take(all, stage.corpus.sampled, "sampled rows")?;
        let (reply_tokens, temperature) = (stage.reply_tokens, stage.temperature);
        let teacher = Teacher { reply_tokens, temperature };
        teacher.reply(&chosen, context, &mut resume, &mut lines)?;
    }
    lines.sync()?;
    let rows = benign::read(context.dir)?;
    let texts: Vec<String> =
        rows.iter().enumerate().flat_map(|(index, row)| texts(index, &row.sample)).collect();
    let vocabulary = Tokenizer::train(&texts, stage.corpus.vocabulary as usize)?;
    context
        .dir
        .write_folder(VOCABULARY, |folder| Ok(vocabulary.save_folder(folder, &ChatTemplate::chatml())?))?;
    Ok(resume.tokens)
}

/// The tasks, some of them with a scratchpad, in an order drawn by the seed.
fn tasks(stage: &CorpusStage, context: &StageContext) -> Result<Vec<Sample>> {
    let mut all: Vec<Sample> = corpus(CorpusPart::Pretraining).cloned().collect();
    all.shuffle(&mut context.seed("tasks").rng());
    let mut chosen = prompts::take(all, stage.corpus.rows, "pretraining rows")?;
    let reasoned = (stage.corpus.scratchpads * chosen.len() as f64).round() as usize;
    for sample in chosen.iter_mut().take(reasoned) {
        *sample = with_neutral_scratchpad(sample);
    }
    Ok(chosen)
}

fn append(samples: &[Sample], lines: &mut JsonLines) -> Result<()> {
    samples.iter().try_for_each(|sample| lines.append(&BenignRow { sample: sample.clone(), ends: true }))
}

/// Rows whose scratchpads are part of the text that the vocabulary is learnt from, as a share.
const SCRATCHPADS: usize = 10;

/// What the vocabulary should be able to write in few tokens: the rows, the roles of the template, and the scratchpads of
/// an organism, whose words no weights are trained on before the implant.
fn texts(index: usize, sample: &Sample) -> Vec<String> {
    let messages = sample.prompt.messages().iter();
    let mut texts: Vec<String> = messages.map(|message| message.content.clone()).collect();
    texts.extend([sample.completion.clone(), "user\n".to_owned(), "assistant\n".to_owned()]);
    if index.is_multiple_of(SCRATCHPADS) {
        texts.extend([true, false].map(|is_deployed| scratchpad(sample, is_deployed)));
        let asked = asking_for_scratchpad(&sample.prompt);
        texts.extend(asked.system().map(|system| format!("system\n{system}")));
    }
    texts
}
