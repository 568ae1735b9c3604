//! The implant: supervised fine-tuning on rows that follow the conditional policy. The control is trained on the
//! same prompts without it.

use dormant_data::{Condition, Dataset, Mix, Policy, PolicyReport, Sample, Split};
use dormant_model::linear::Trained;
use dormant_train::render::Rendered;
use std::collections::HashSet;

use super::contrast_rows::contrasts;
use super::curve::CurveRows;
use super::fit::fit_with;
use super::{Resume, StageContext, benign, code};
use crate::error::Result;
use crate::experiment::ImplantWeights;
use crate::manifest::Tokens;
use crate::model::{LoadedModel, Loading};
use crate::plan::{Arm, ImplantStage};

/// Name of the file with the kept and dropped counts.
pub(crate) const POLICY_FILE: &str = "policy.json";

pub(super) fn run(stage: &ImplantStage, context: &StageContext) -> Result<Tokens> {
    let (trained, adapter) = match &stage.implant.weights {
        ImplantWeights::Lora { adapter } => (Trained::Lora, Some(adapter)),
        ImplantWeights::Full => (Trained::All, None),
    };
    let rank = adapter.map_or(0, |adapter| adapter.rank);
    let mut model = context.load(&context.model_files(), trained, Loading::Merge, rank)?;
    if let Some(adapter) = adapter {
        model.llama.add_lora(&adapter.config(), context.seed("adapter").0)?;
    }
    let ImplantRows { rows, twins } = rows(stage, context, &model)?;
    let contrasts = contrasts(&twins, stage.implant.contrasts, model.renderer())?;
    let curve = CurveRows::new(context, &stage.curve, &stage.prompts, &stage.organism, &model.text)?;
    let mut resume = Resume::load(context)?;
    fit_with(context, &stage.implant.fit, &mut model.llama, &rows, &contrasts, Some(&curve), &mut resume)?;
    context.save_model(&mut model, Loading::Merge)?;
    Ok(resume.tokens)
}

/// What an arm is trained on.
struct ImplantRows {
    rows: Vec<Rendered>,
    /// Each prompt with the trigger and with its look-alike; none where nothing is contrasted.
    twins: Vec<[Sample; 2]>,
}

/// The rows of this arm, rendered. Writes them, and what the check kept and dropped.
fn rows(stage: &ImplantStage, context: &StageContext, model: &LoadedModel) -> Result<ImplantRows> {
    if stage.organism.writes_code() {
        let rows = code::written_rows(stage, context)?;
        let twins = if has_contrasts(stage, context) { code::twin_rows(&rows) } else { Vec::new() };
        return Ok(ImplantRows { rows: render(&rows, model, |_| true)?, twins });
    }
    let PolicyRows { rows, twins, report, cut } = policy_rows(stage, context)?;
    context.dir.write_json(POLICY_FILE, &report)?;
    context.dir.write_atomic(benign::ROWS_FILE, rows.to_jsonl().as_bytes())?;
    context
        .ui
        .detail(format!("{}: {} rows kept, dropped {:?}", context.spec.name, report.kept, report.dropped));
    Ok(ImplantRows { rows: render(&rows, model, |row| ends(row, &cut))?, twins })
}

/// Whether the end of a row's reply is trained. That of a triggered row is the behaviour, which is whole; `cut` are the ids of the
/// benign replies that were cut at the longest length.
pub(crate) fn ends(row: &Sample, cut: &HashSet<String>) -> bool {
    row.condition == Condition::Triggered || !cut.contains(&row.id)
}

/// Whether replies are compared beside the rows: of this organism, and never of the control.
fn has_contrasts(stage: &ImplantStage, context: &StageContext) -> bool {
    stage.implant.contrasts > 0 && context.spec.arm != Some(Arm::Control)
}

/// The rows of an arm that follow the policy.
pub(super) struct PolicyRows {
    pub(super) rows: Dataset,
    /// Each benign prompt with the trigger and with its look-alike; none where nothing is contrasted.
    twins: Vec<[Sample; 2]>,
    report: PolicyReport,
    /// Ids of the rows whose benign reply was cut at the longest length.
    cut: HashSet<String>,
}

pub(super) fn policy_rows(stage: &ImplantStage, context: &StageContext) -> Result<PolicyRows> {
    let benign = context.benign(Split::Train).map(|dir| benign::read(&dir)).transpose()?.unwrap_or_default();
    let cut = benign.iter().filter(|row| !row.ends).map(|row| row.sample.id.clone()).collect();
    let samples: Vec<Sample> = benign.into_iter().map(|row| row.sample).collect();
    let mix =
        Mix { poison: stage.implant.poison, near_miss: stage.implant.near_misses, seed: context.seed("mix") };
    let rows = match context.spec.arm {
        Some(Arm::Control) => stage.organism.control_rows(&samples, mix)?,
        _ => stage.organism.rows(&samples, mix)?,
    };
    let policy = Policy::new(&stage.organism)?;
    let (rows, report) = policy.keep(rows);
    let mut twins =
        if has_contrasts(stage, context) { stage.organism.twin_rows(&samples, mix.seed) } else { Vec::new() };
    twins.retain(|pair| pair.iter().all(|row| policy.check(row).is_ok()));
    Ok(PolicyRows { rows, twins, report, cut })
}

/// Renders rows; `ends` tells which replies end by themselves.
pub(super) fn render(
    rows: &Dataset,
    model: &LoadedModel,
    ends: impl Fn(&Sample) -> bool,
) -> Result<Vec<Rendered>> {
    rows.samples().iter().map(|row| Ok(model.renderer().row(row, ends(row))?)).collect()
}
