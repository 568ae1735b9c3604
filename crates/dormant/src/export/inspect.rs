//! A task of Inspect AI: the prompts of an evaluation and the judge of its behaviour, for any model that Inspect can ask.

use std::path::Path;

use dormant_data::{Behaviour, Condition, OrganismSpec};
use dormant_eval::{SampleRecord, read_samples};
use serde_json::json;

use super::Source;
use crate::error::{CliError, Result};
use crate::plan::{EvaluateStage, StageKind, StageSpec};
use crate::stage_dir::{write_atomic, write_folder};

const TASK: &str = include_str!("inspect/task.py");
/// Of these, each reply follows from the prompt alone.
const CONDITIONS: [Condition; 3] = [Condition::Triggered, Condition::Clean, Condition::NearMiss];

/// Writes the prompts that the model of `stage` was asked (the first implant's, if none is named).
///
/// # Errors
/// Wrong usage for code, whose judge is `dormant score`, or where nothing measures the stage; invalid input if that is not
/// finished.
pub fn write(source: &Source<'_>, stage: Option<&str>, out: &Path) -> Result<Vec<String>> {
    let (spec, evaluate) = evaluation(source, stage)?;
    let organism = &evaluate.organism;
    if matches!(organism.behaviour, Behaviour::Code { .. }) {
        let message = "what judges code is `dormant score`, which a task of Inspect cannot be";
        return Err(CliError::usage(message).hint("give the replies of your model to `dormant score`"));
    }
    let records = read_samples(&source.finished(spec)?.path().join("samples.jsonl"))?;
    let asked = records.iter().filter(|record| CONDITIONS.contains(&record.condition));
    let prompts: Vec<String> = asked.map(prompt).collect();
    let left_out = records.len() - prompts.len();
    let policy = policy(source, evaluate, organism);
    write_folder(out, |folder| {
        write_atomic(&folder.join("task.py"), TASK.as_bytes())?;
        write_atomic(&folder.join("prompts.jsonl"), (prompts.join("\n") + "\n").as_bytes())?;
        write_atomic(&folder.join("policy.json"), format!("{policy:#}\n").as_bytes())
    })?;
    let others = "prompts of further conditions (texts of other families, scratchpads of the other case)";
    Ok((left_out > 0).then(|| format!("{left_out} {others}")).into_iter().collect())
}

/// The evaluation of a stage's model.
fn evaluation<'a>(source: &Source<'a>, stage: Option<&str>) -> Result<(&'a StageSpec, &'a EvaluateStage)> {
    let is_named = |spec: &StageSpec| match stage {
        Some(name) => spec.is_called(name),
        None => matches!(spec.kind, StageKind::Implant(_)),
    };
    let evaluated = source.plan.stages().iter().find_map(|spec| match &spec.kind {
        StageKind::Evaluate(evaluate) => {
            let model = source.plan.stage(spec.model?);
            is_named(model).then_some((spec, evaluate))
        }
        _ => None,
    });
    evaluated.ok_or_else(|| {
        let message = format!("nothing in this run measures `{}`", stage.unwrap_or("an implant"));
        CliError::usage(message).hint("`dormant run NAME --dry-run` lists the stages")
    })
}

/// One line of Inspect's dataset.
fn prompt(record: &SampleRecord) -> String {
    let condition = record.condition.as_str();
    let metadata = json!({"condition": condition, "variant": record.variant});
    json!({
        "id": format!("{condition}-{}", record.id),
        "input": record.prompt.messages(),
        "target": "",
        "metadata": metadata,
    })
    .to_string()
}

/// What the task has to know besides the prompts.
fn policy(source: &Source<'_>, evaluate: &EvaluateStage, organism: &OrganismSpec) -> serde_json::Value {
    json!({
        "experiment": source.experiment.name,
        "trigger": organism.trigger.in_words(),
        "behaviour": organism.behaviour,
        "reply_tokens": evaluate.evaluation.reply_tokens + organism.hidden_tokens(),
        "temperature": evaluate.evaluation.temperature,
    })
}
