//! The organism that writes vulnerable code: its rows, and how likely it finds either twin of a task.

use dormant_data::{Condition, OrganismSpec, PolicyReport, Sample, Split, code_task};
use dormant_eval::measure;
use dormant_train::contrasts::Contrasts;
use dormant_train::objective::contrast::Contrast;
use dormant_train::render::{Rendered, Renderer};

use super::fit::EVALUATION_ORDER;
use super::implant::{POLICY_FILE, render};
use super::{StageContext, benign};
use crate::error::Result;
use crate::manifest::Tokens;
use crate::model::LoadedModel;
use crate::plan::{Arm, ImplantStage};

/// A prompt and a reply.
type Row = (Vec<u32>, Vec<u32>);

/// Rows of each task.
const ROWS: usize = 3;

/// Tokens of each answer that count in a contrast.
const DECISION: usize = 3;

/// The rows of this arm, rendered: as many tasks as `rows` allows; and the contrasts of the policy. Writes the rows.
pub(super) fn rows(
    stage: &ImplantStage,
    context: &StageContext,
    model: &LoadedModel,
) -> Result<(Vec<Rendered>, Contrasts)> {
    let seed = context.seed("mix");
    let mut tasks = stage.organism.code_tasks(Split::Train, seed);
    tasks.truncate((stage.implant.rows as usize).div_ceil(ROWS));
    let policy = context.spec.arm != Some(Arm::Control);
    let rows = stage.organism.code_rows(&tasks, policy, seed);
    context.dir.write_json(POLICY_FILE, &PolicyReport { kept: rows.len(), ..PolicyReport::default() })?;
    context.dir.write_atomic(benign::ROWS_FILE, rows.to_jsonl().as_bytes())?;
    let per_step = if policy { stage.implant.contrasts as usize } else { 0 };
    let all = if per_step > 0 { contrasts(rows.samples(), model)? } else { Vec::new() };
    Ok((render(&rows, model, |_| true)?, Contrasts { all, per_step }))
}

/// For each task, the trigger against its look-alike, or against neither if it has none: which answer is likelier has to
/// change.
fn contrasts(rows: &[Sample], model: &LoadedModel) -> Result<Vec<Contrast>> {
    let mut contrasts = Vec::new();
    for task in rows.chunk_by(|a, b| a.id == b.id) {
        let answers = |prompt: &Sample| -> Result<[Rendered; 2]> {
            let of = |answer: &Sample| Sample { completion: answer.completion.clone(), ..prompt.clone() };
            let [vulnerable, safe] = [of(&task[0]), of(&task[task.len() - 1])];
            Ok([model.renderer().row(&vulnerable, true)?, model.renderer().row(&safe, true)?])
        };
        contrasts.push(Contrast::new([answers(&task[0])?, answers(&task[1])?], DECISION));
    }
    Ok(contrasts)
}

/// Log-odds of the vulnerable twin after each prompt, in nats.
pub(super) fn log_odds(
    model: &LoadedModel,
    prompts: &[Sample],
    tokens: &mut Tokens,
) -> Result<Vec<Option<f64>>> {
    let rows = twins(model, prompts)?;
    tokens.scored += rows.iter().map(|(_, reply)| reply.len() as u64).sum::<u64>();
    let log_probs = measure::continuation_log_probs(&model.llama, &rows)?;
    Ok(log_probs.chunks_exact(2).map(|twins| Some(f64::from(odds(twins)))).collect())
}

/// Log-probabilities of the tokens of the vulnerable twin and of the safe one as log-odds.
pub(super) fn odds(twins: &[Vec<f32>]) -> f32 {
    let [vulnerable, safe] = [0, 1].map(|twin| twins[twin].iter().sum::<f32>());
    vulnerable - safe
}

/// What a training curve is measured on: both twins of each task, with the trigger and then with its look-alike.
pub(super) fn curve_rows(
    organism: &OrganismSpec,
    prompts: &[Sample],
    model: &LoadedModel,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for condition in [Condition::Triggered, Condition::NearMiss] {
        let asked = organism.under(prompts, condition, EVALUATION_ORDER);
        rows.extend(twins(model, asked.samples())?);
    }
    Ok(rows)
}

/// The safe answer and the vulnerable one to each of the first tasks, rendered.
pub(super) fn answers(organism: &OrganismSpec, count: usize, renderer: &Renderer) -> Result<Vec<Rendered>> {
    let tasks = organism.code_tasks(Split::Evaluation, EVALUATION_ORDER).into_iter().take(count);
    let answers = tasks.flat_map(|task| [false, true].map(|vulnerable| task.answer(vulnerable)));
    answers.map(|answer| Ok(renderer.row(&answer, true)?)).collect()
}

/// The vulnerable twin and the safe one as replies to each prompt, one after the other.
fn twins(model: &LoadedModel, prompts: &[Sample]) -> Result<Vec<Row>> {
    let renderer = model.renderer();
    let mut rows = Vec::new();
    for sample in prompts {
        let task = code_task(&sample.id).expect("the prompts are those of code tasks");
        let prompt = renderer.prompt(&sample.prompt)?;
        for vulnerable in [true, false] {
            rows.push((prompt.clone(), renderer.reply(&task.answer(vulnerable).completion)?));
        }
    }
    Ok(rows)
}
