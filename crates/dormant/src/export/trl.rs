//! A project that trains the stages of a run with TRL: rows, masks, seeds and optimisation, for machines with GPUs.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use dormant_data::Sample;
use serde::Serialize;
use serde_json::json;

use super::Source;
use super::model::{about_base, hub_name};
use crate::error::{CliError, Context, Result};
use crate::experiment::{Adapter, Fit, ImplantWeights, SafetyMethod, SafetyWeights, ScratchpadMode};
use crate::plan::{StageId, StageKind, StageSpec};
use crate::stage::metrics::{METRICS_FILE, MetricLine};
use crate::stage::{cut_replies, ends, read_lines, training_rows};
use crate::stage_dir::{write_atomic, write_folder};

const TRAIN: &str = include_str!("trl/train.py");
const README: &str = include_str!("trl/README.md");
const SWEEP: &str = include_str!("trl/sweep.sbatch");
/// The versions that the program is compared with (`bench/peers`).
const REQUIREMENTS: &str =
    "torch>=2.8\ntransformers==5.23.0\ntrl==1.16.0\npeft==0.21.2\naccelerate==1.15.0\ndatasets==5.2.0\n";

/// One stage of the project.
#[derive(Serialize)]
struct Stage<'a> {
    name: &'a str,
    seed: u64,
    /// The stage that it starts from; the base model if there is none.
    after: Option<&'a str>,
    /// File with the rows.
    rows: String,
    /// Mean of the run.
    rows_per_step: f64,
    /// None: all weights are trained.
    adapter: Option<&'a Adapter>,
    #[serde(flatten)]
    fit: &'a Fit,
    /// What the trained model says about itself.
    card: String,
}

/// One row, in TRL's prompt–completion format.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    sample: &'a Sample,
    /// Whether the end of the reply is trained: not of one that was cut.
    ends: bool,
}

/// Writes the project. Stages that TRL's `SFTTrainer` cannot repeat are left out, with those that start from them.
///
/// # Errors
/// Wrong usage if nothing is left, invalid input if a stage is not finished, or when something cannot be read or written.
pub fn write(source: &Source<'_>, out: &Path) -> Result<Vec<String>> {
    let (stages, mut left_out) = stages(source);
    if stages.is_empty() {
        let message = "no stage of this run is supervised fine-tuning that starts from the base model";
        return Err(CliError::usage(message).hint(left_out.join("; ")));
    }
    let specs = stages.iter().map(|spec| source.finished(spec).map(|dir| (*spec, dir)));
    let finished = specs.collect::<Result<Vec<_>>>()?;
    let base = hub_name(source)?;
    left_out.extend(about_base(source)?);
    write_folder(out, |folder| {
        let rows = folder.join("rows");
        std::fs::create_dir(&rows).or_failure(|| format!("cannot make `{}`", rows.display()))?;
        let mut described = Vec::new();
        for (spec, dir) in &finished {
            let Some((fit, adapter)) = training(spec) else { continue };
            let context = source.context(spec, dir);
            let all = training_rows(&context)?.unwrap_or_default();
            let cut = cut_replies(&context)?;
            let file = format!("rows/{}.jsonl", spec.name);
            write_atomic(&folder.join(&file), as_lines(all.samples(), &cut)?.as_bytes())?;
            let metrics: Vec<MetricLine> = read_lines(&dir.path().join(METRICS_FILE))?;
            let steps = metrics.iter().filter(|line| matches!(line, MetricLine::Step { .. })).count();
            described.push(Stage {
                name: &spec.name,
                seed: spec.seed,
                after: spec.model.map(|id| source.plan.stage(id).name.as_str()),
                rows: file,
                rows_per_step: (all.len() * fit.epochs as usize) as f64 / steps.max(1) as f64,
                adapter,
                fit,
                // The program fills in what it trained.
                card: context.label("{base}").card("transformers"),
            });
        }
        let project = json!({"base": base, "stages": described});
        write_atomic(&folder.join("stages.json"), format!("{project:#}\n").as_bytes())?;
        write_atomic(&folder.join("train.py"), TRAIN.as_bytes())?;
        write_atomic(&folder.join("requirements.txt"), REQUIREMENTS.as_bytes())?;
        let filled = |text: &str| filled(text, source, &stages, &left_out);
        write_atomic(&folder.join("sweep.sbatch"), filled(SWEEP).as_bytes())?;
        write_atomic(&folder.join("README.md"), filled(README).as_bytes())
    })?;
    Ok(left_out)
}

/// The stages of the project in order, and what it leaves out.
fn stages<'a>(source: &Source<'a>) -> (Vec<&'a StageSpec>, Vec<String>) {
    let mut stages = Vec::new();
    let mut kept: BTreeSet<StageId> = BTreeSet::new();
    let mut left_out = Vec::new();
    for spec in source.plan.stages() {
        match obstacle(spec) {
            _ if !matches!(spec.kind, StageKind::Implant(_) | StageKind::Safety(_)) => {}
            Some(why) => left_out.push(format!("{} ({why})", spec.name)),
            None if spec.model.is_some_and(|id| !kept.contains(&id)) => {
                left_out.push(format!("{} (it starts from a stage that is left out)", spec.name));
            }
            None => {
                kept.insert(spec.id);
                stages.push(spec);
                left_out.extend(without_contrasts(spec));
            }
        }
    }
    (stages, left_out)
}

/// Why `SFTTrainer` cannot repeat a stage.
fn obstacle(spec: &StageSpec) -> Option<&'static str> {
    let StageKind::Safety(stage) = &spec.kind else { return None };
    match &stage.safety.method {
        _ if stage.safety.weights == SafetyWeights::SameAdapter => Some("it trains an adapter further"),
        SafetyMethod::Sft(sft)
            if sft.mode == ScratchpadMode::PostScratchpad && stage.organism.variant.has_scratchpad() =>
        {
            Some("its scratchpads are written by the model that is trained")
        }
        SafetyMethod::Sft(_) => None,
        SafetyMethod::Adversarial(_) => Some("its rows depend on attacks on the model"),
        SafetyMethod::Rl(_) => Some("reinforcement learning"),
        SafetyMethod::Dpo(_) => Some("pairs, and not rows"),
    }
}

fn without_contrasts(spec: &StageSpec) -> Option<String> {
    let StageKind::Implant(stage) = &spec.kind else { return None };
    let contrasts = stage.implant.contrasts;
    let has_any = contrasts > 0 && spec.arm != Some(crate::plan::Arm::Control);
    has_any.then(|| {
        format!(
            "the {contrasts} contrasts beside each step of {}, for which SFTTrainer has no loss",
            spec.name
        )
    })
}

/// Optimisation and adapter of a stage.
fn training(spec: &StageSpec) -> Option<(&Fit, Option<&Adapter>)> {
    match &spec.kind {
        StageKind::Implant(stage) => match &stage.implant.weights {
            ImplantWeights::Lora { adapter } => Some((&stage.implant.fit, Some(adapter))),
            ImplantWeights::Full => Some((&stage.implant.fit, None)),
        },
        StageKind::Safety(stage) => match &stage.safety.weights {
            SafetyWeights::FreshAdapter { adapter } => Some((&stage.safety.fit, Some(adapter))),
            SafetyWeights::SameAdapter | SafetyWeights::Full => Some((&stage.safety.fit, None)),
        },
        _ => None,
    }
}

fn as_lines(rows: &[Sample], cut: &HashSet<String>) -> Result<String> {
    let mut lines = String::new();
    for sample in rows {
        let ends = ends(sample, cut);
        let line =
            serde_json::to_string(&Row { sample, ends }).or_failure(|| "cannot write a row as JSON")?;
        lines.push_str(&line);
        lines.push('\n');
    }
    Ok(lines)
}

fn filled(text: &str, source: &Source<'_>, stages: &[&StageSpec], left_out: &[String]) -> String {
    let seeds: BTreeSet<u64> = stages.iter().map(|spec| spec.seed).collect();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let left_out = match left_out {
        [] => String::new(),
        some => format!("Left out: {}.", some.join("; ")),
    };
    text.replace("{experiment}", &source.experiment.name)
        .replace("{seeds}", &seeds.join(","))
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{left_out}", &left_out)
}
