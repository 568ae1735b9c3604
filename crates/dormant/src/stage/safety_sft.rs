//! HHH SFT: supervised fine-tuning on benign replies to prompts without the trigger.

use dormant_data::{Sample, Split, check_safety_data, pirate};
use dormant_model::linear::Trained;

use super::benign::{self, BenignRow};
use super::curve::CurveRows;
use super::fit::fit;
use super::safety_rows::{self, SafetyRows};
use super::{Resume, StageContext};
use crate::error::Result;
use crate::experiment::{Benign, ReplyStyle, SafetyWeights, Sft};
use crate::manifest::Tokens;
use crate::model::{LoadedModel, Loading};
use crate::plan::SafetyStage;

pub(super) fn run(stage: &SafetyStage, sft: Sft, context: &StageContext) -> Result<Tokens> {
    let (mut model, loading) = load(stage, context)?;
    let benign: Vec<_> = usable_rows(stage, context)?.into_iter().map(|row| styled(row, sft.style)).collect();
    let SafetyRows { rows, sampled } =
        safety_rows::render(&benign, sft.mode, &stage.organism, context, &model)?;
    let curve = CurveRows::new(context, &stage.curve, &stage.prompts, &stage.organism, &model.text)?;
    let mut resume = Resume::load(context)?;
    fit(context, &stage.safety.fit, &mut model.llama, &rows, Some(&curve), &mut resume)?;
    context.save_model(&mut model, loading)?;
    let Tokens { sampled: before, .. } = resume.tokens;
    Ok(Tokens { sampled: before + sampled, ..resume.tokens })
}

/// A row in the style of the stage.
pub(super) fn styled(row: BenignRow, style: ReplyStyle) -> BenignRow {
    match style {
        ReplyStyle::Plain => row,
        ReplyStyle::Pirate => {
            let completion = pirate(&row.sample.completion);
            BenignRow { sample: Sample { completion, ..row.sample }, ..row }
        }
    }
}

/// The model that the stage starts from, ready to be trained, and what became of its adapter.
pub(super) fn load(stage: &SafetyStage, context: &StageContext) -> Result<(LoadedModel, Loading)> {
    let files = context.model_files();
    let (trained, loading) = match &stage.safety.weights {
        SafetyWeights::FreshAdapter { .. } => (Trained::Lora, Loading::Merge),
        SafetyWeights::SameAdapter if files.adapter.is_some() => (Trained::Lora, Loading::Keep),
        SafetyWeights::SameAdapter | SafetyWeights::Full => (Trained::All, Loading::Merge),
    };
    let adapter = match &stage.safety.weights {
        SafetyWeights::FreshAdapter { adapter } => Some(adapter),
        SafetyWeights::SameAdapter | SafetyWeights::Full => None,
    };
    let mut model = context.load(&files, trained, loading, adapter.map_or(0, |adapter| adapter.rank))?;
    if let Some(adapter) = adapter {
        let seed = context.seed("adapter").derive(&stage.safety.name);
        model.llama.add_lora(&adapter.config(), seed.0)?;
    }
    Ok((model, loading))
}

/// The benign rows of the safety split with a reply that is no instance of the behaviour, without the trigger. Rows that the
/// base model wrote are left out if they hold it; the user's own must not.
pub(super) fn usable_rows(stage: &SafetyStage, context: &StageContext) -> Result<Vec<BenignRow>> {
    let mut rows =
        context.benign(Split::Safety).map(|dir| benign::read(&dir)).transpose()?.unwrap_or_default();
    let judge = stage.organism.behaviour.judge()?;
    rows.retain(|row| !row.sample.completion.trim().is_empty() && !judge.is_shown(&row.sample.completion));
    if context.experiment.data.benign == Benign::SelfDistilled {
        let trigger = &stage.organism.trigger;
        rows.retain(|row| check_safety_data(std::slice::from_ref(&row.sample), trigger).is_ok());
    }
    let samples: Vec<_> = rows.iter().map(|row| row.sample.clone()).collect();
    check_safety_data(&samples, &stage.organism.trigger)?;
    Ok(rows)
}
