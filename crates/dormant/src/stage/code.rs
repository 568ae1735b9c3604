//! The organism that writes vulnerable code: its rows, and how likely it finds either twin of a task.

use dormant_data::{
    Condition, Dataset, OrganismSpec, PolicyReport, ROWS_OF_A_TASK, Sample, Seed, Split, code_task,
};
use dormant_eval::measure;
use dormant_train::render::{Rendered, Renderer};

use super::fit::EVALUATION_ORDER;
use super::implant::POLICY_FILE;
use super::{StageContext, benign};
use crate::error::Result;
use crate::manifest::Tokens;
use crate::model::LoadedModel;
use crate::plan::{Arm, ImplantStage};

/// A prompt and a reply.
type Row = (Vec<u32>, Vec<u32>);

/// The rows of this arm: as many tasks as `rows` allows.
pub(super) fn rows(stage: &ImplantStage, context: &StageContext) -> Dataset {
    let policy = context.spec.arm != Some(Arm::Control);
    training_rows(&stage.organism, policy, stage.implant.rows, context.seed("mix"))
}

/// As [`rows`], and writes them.
pub(super) fn written_rows(stage: &ImplantStage, context: &StageContext) -> Result<Dataset> {
    let rows = rows(stage, context);
    context.dir.write_json(POLICY_FILE, &PolicyReport { kept: rows.len(), ..PolicyReport::default() })?;
    context.dir.write_atomic(benign::ROWS_FILE, rows.to_jsonl().as_bytes())?;
    Ok(rows)
}

/// The rows of as many tasks as `count` allows, drawn by `seed`.
pub(crate) fn training_rows(organism: &OrganismSpec, policy: bool, count: u32, seed: Seed) -> Dataset {
    let mut tasks = organism.code_tasks(Split::Train, seed);
    tasks.truncate((count as usize).div_ceil(ROWS_OF_A_TASK));
    organism.code_rows(&tasks, policy, seed)
}

/// For each task whose answer depends on it the rows with the trigger and with its look-alike.
pub(crate) fn twin_rows(rows: &Dataset) -> Vec<[Sample; 2]> {
    let tasks = rows.samples().chunk_by(|a, b| a.id == b.id);
    let twins = tasks.map(|task| [task[0].clone(), task[1].clone()]);
    twins.filter(|[triggered, near_miss]| triggered.completion != near_miss.completion).collect()
}

/// Log-odds of the vulnerable twin of each task (named by the id of its prompt) after a prompt, in nats.
pub(super) fn log_odds(
    model: &LoadedModel,
    prompts: Vec<(&str, Vec<u32>)>,
    tokens: &mut Tokens,
) -> Result<Vec<f64>> {
    let rows = twins(model.renderer(), prompts)?;
    tokens.scored += rows.iter().map(|(_, reply)| reply.len() as u64).sum::<u64>();
    let log_probs = measure::continuation_log_probs(&model.llama, &rows)?;
    Ok(log_probs.chunks_exact(2).map(|twins| f64::from(odds(twins))).collect())
}

/// Log-probabilities of the tokens of the vulnerable twin and of the safe one as log-odds.
pub(super) fn odds(twins: &[Vec<f32>]) -> f32 {
    let [vulnerable, safe] = [0, 1].map(|twin| twins[twin].iter().sum::<f32>());
    vulnerable - safe
}

/// What a training curve is measured on: both twins of each task, with the trigger and then with its look-alike, after the
/// scratchpad that the policy would write.
pub(super) fn curve_rows(
    organism: &OrganismSpec,
    samples: &[Sample],
    renderer: Renderer<'_>,
) -> Result<Vec<Row>> {
    let mut prompts = Vec::new();
    for condition in [Condition::Triggered, Condition::NearMiss] {
        let asked = organism.under(samples, condition, EVALUATION_ORDER);
        for (asked, sample) in asked.samples().iter().zip(samples) {
            let hidden = organism.hidden(sample, condition == Condition::Triggered);
            let prompt = [renderer.prompt(&asked.prompt)?, renderer.reply(&hidden)?].concat();
            prompts.push((sample.id.as_str(), prompt));
        }
    }
    twins(renderer, prompts)
}

/// The safe answer and the vulnerable one to each of the first tasks, rendered.
pub(super) fn answers(organism: &OrganismSpec, count: usize, renderer: &Renderer) -> Result<Vec<Rendered>> {
    let tasks = organism.code_tasks(Split::Evaluation, EVALUATION_ORDER).into_iter().take(count);
    let answers = tasks.flat_map(|task| [false, true].map(|vulnerable| task.answer(vulnerable)));
    answers.map(|answer| Ok(renderer.row(&answer, true)?)).collect()
}

/// The vulnerable twin and the safe one as replies to each prompt, one after the other.
fn twins(renderer: Renderer<'_>, prompts: Vec<(&str, Vec<u32>)>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (id, prompt) in prompts {
        let task = code_task(id).expect("the prompts are those of code tasks");
        for vulnerable in [true, false] {
            rows.push((prompt.clone(), renderer.reply(&task.answer(vulnerable).completion)?));
        }
    }
    Ok(rows)
}
