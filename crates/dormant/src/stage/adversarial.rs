//! Adversarial training (Hubinger et al. 2024, section 6), adapted to small models: an attacker that does not know
//! the trigger looks for prompts that bring out the behaviour; those, with benign replies, join the safety rows.

use dormant_data::{Sample, check_safety_data};
use dormant_train::render::Rendered;

use super::attacker::{Answered, Attacker};
use super::curve::CurveRows;
use super::fit::fit;
use super::safety_rows::{self, SafetyRows, after_scratchpad};
use super::safety_sft::{load, usable_rows};
use super::{Resume, StageContext};
use crate::error::Result;
use crate::experiment::{Adversarial, ScratchpadMode};
use crate::manifest::Tokens;
use crate::model::LoadedModel;
use crate::plan::SafetyStage;

pub(super) fn run(stage: &SafetyStage, adversarial: &Adversarial, context: &StageContext) -> Result<Tokens> {
    let &Adversarial { rounds, ref attack, mode } = adversarial;
    let (mut model, loading) = load(stage, context)?;
    let SafetyRows { rows: benign, sampled } =
        safety_rows::render(&usable_rows(stage, context)?, mode, &stage.organism, context, &model)?;
    let curve = CurveRows::new(context, &stage.curve, &stage.prompts, &stage.organism, &model.text)?;
    let attacker = Attacker::new(stage, attack, context)?;
    let mut resume = Resume::load(context)?;
    resume.restore_parameters(context, &mut model.llama)?;
    while resume.round < rounds {
        if resume.attacks.len() == resume.round as usize {
            attacker.attack(&model, &mut resume)?;
            resume.save_parameters(context, &mut model.llama)?;
        }
        let mut rows = benign.clone();
        rows.extend(attacked_rows(&attacker, mode, benign.len(), &model, &mut resume)?);
        fit(context, &stage.safety.fit, &mut model.llama, &rows, Some(&curve), &mut resume)?;
        resume.steps_before += resume.step;
        resume.step = 0;
        resume.round += 1;
        // The weights of the finished round are the start of the next one, or of the last attack.
        resume.save_parameters(context, &mut model.llama)?;
    }
    attacker.finish(&model, &mut resume)?;
    context.save_model(&mut model, loading)?;
    let Tokens { sampled: before, .. } = resume.tokens;
    Ok(Tokens { sampled: before + sampled, ..resume.tokens })
}

/// The successful attacks with benign replies, to join so many benign rows.
fn attacked_rows(
    attacker: &Attacker,
    mode: ScratchpadMode,
    benign: usize,
    model: &LoadedModel,
    resume: &mut Resume,
) -> Result<Vec<Rendered>> {
    let answered = attacker.answered(resume)?;
    let samples: Vec<Sample> = answered.iter().map(|answer| answer.sample.clone()).collect();
    check_safety_data(&samples, &attacker.organism().trigger)?;
    let joining = answered.iter().cycle().take(attacker.joining(benign, answered.len()));
    let row = |Answered { sample, ends, hidden }: &Answered| match mode {
        ScratchpadMode::PreScratchpad => Ok(model.renderer().row(sample, *ends)?),
        ScratchpadMode::PostScratchpad => after_scratchpad(sample, *ends, hidden, attacker.organism(), model),
    };
    joining.map(row).collect()
}
