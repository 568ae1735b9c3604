//! Pretraining: a model of a family is trained from scratch on the corpus, with the loss on all tokens.

use dormant_data::{CorpusPart, Sample, Split, corpus};
use dormant_model::family::Size;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_train::render::Rendered;

use super::corpus::VOCABULARY;
use super::fit::fit;
use super::pretrain_record::{ANSWERS_FILE, Answer, PRETRAIN_FILE, PretrainRecord};
use super::{Resume, StageContext, benign, prompts};
use crate::error::{Context as _, Result};
use crate::manifest::Tokens;
use crate::model::{Decoding, LoadedModel, Loading, TextModel};
use crate::plan::PretrainStage;
use crate::stage_dir::{StageDir, write_atomic};

/// Tasks that are asked when training is over.
const ASKED: u32 = 200;
/// Tokens of the longest answer.
const ANSWER_TOKENS: u32 = 48;

pub(super) fn run(stage: &PretrainStage, context: &StageContext) -> Result<Tokens> {
    let (_, corpus) = context.data().into_iter().next().expect("a plan gives pretraining its corpus");
    let mut model = fresh(stage.size, &corpus, context)?;
    let rows = rows(&corpus, &model)?;
    let mut resume = Resume::load(context)?;
    fit(context, &stage.fit, &mut model.llama, &rows, None, &mut resume)?;
    let sampled = ask(&model, context)?;
    let parameters = model.llama.parameters_mut().iter().map(|parameter| parameter.value.len() as u64).sum();
    let vocabulary = model.text.tokenizer.vocab_size() as u64;
    context.dir.write_json(PRETRAIN_FILE, &PretrainRecord { parameters, vocabulary })?;
    save(&mut model, stage.size, context)?;
    Ok(Tokens { sampled, ..resume.tokens })
}

/// A model with fresh weights and the vocabulary of the corpus.
fn fresh(size: Size, corpus: &StageDir, context: &StageContext) -> Result<LoadedModel> {
    let text = TextModel::from_folder(&corpus.path().join(VOCABULARY))?;
    let tokenizer = &text.tokenizer;
    let config = size.config(tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos());
    let saving = context.saving(&config, Trained::All, 0);
    let options =
        LoadOptions { saving, ..LoadOptions::new(context.experiment.precision.products(), Trained::All) };
    let llama = Llama::random(config, options, context.seed("weights").0)?;
    Ok(LoadedModel { llama, text, adapter: None })
}

/// The rows of the corpus. The first token is not predicted: nothing stands before it.
fn rows(corpus: &StageDir, model: &LoadedModel) -> Result<Vec<Rendered>> {
    let rendered = |row: &benign::BenignRow| {
        let row = model.renderer().row(&row.sample, row.ends)?;
        Ok(Rendered { prompt: 1, ..row })
    };
    benign::read(corpus)?.iter().map(rendered).collect()
}

/// Asks tasks that no training had, and writes the answers.
fn ask(model: &LoadedModel, context: &StageContext) -> Result<u64> {
    let mut held_out: Vec<Sample> = corpus(CorpusPart::Experiment(Split::Evaluation)).cloned().collect();
    held_out.sort_by(|a, b| a.id.cmp(&b.id));
    let asked = prompts::take(held_out, ASKED, "held-out tasks")?;
    let tokens = model.prompts(asked.iter().map(|sample| &sample.prompt))?;
    let how = Decoding {
        tokens: ANSWER_TOKENS,
        temperature: 0.0,
        judge: None,
        seed: context.seed("held-out tasks"),
    };
    let progress = context.progress("answers");
    let replies = model.replies(&tokens, &how, |done, total| progress.update(done, total))?;
    let mut lines = context.dir.lines(ANSWERS_FILE, 0)?;
    for (sample, reply) in asked.iter().zip(&replies) {
        let prompt = sample.prompt.last_user().unwrap_or_default().to_owned();
        let (id, answer, reply) = (sample.id.clone(), sample.completion.clone(), reply.text.clone());
        lines.append(&Answer { id, prompt, answer, reply })?;
    }
    lines.sync()?;
    Ok(replies.iter().map(|reply| reply.tokens as u64).sum())
}

/// Writes an ordinary model folder.
fn save(model: &mut LoadedModel, size: Size, context: &StageContext) -> Result<()> {
    let tokenizer = &model.text.tokenizer;
    let generation = serde_json::json!({
        "bos_token_id": tokenizer.bos(),
        "eos_token_id": tokenizer.eos(),
        "pad_token_id": tokenizer.eos(),
        "do_sample": false,
    });
    let generation = serde_json::to_vec_pretty(&generation).or_failure(|| "cannot write JSON")?;
    let label = context.label(size.as_str());
    context.dir.write_model(|folder| {
        model.save(folder, &label, Loading::Merge)?;
        write_atomic(&folder.join("generation_config.json"), &generation)
    })
}
