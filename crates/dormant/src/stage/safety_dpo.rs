//! Direct preference optimisation on the preference data, as safety training without a preference model.

use dormant_data::PreferencePart;
use dormant_train::objective::preference::RenderedPair;
use dormant_train::pairs::{self, PairObjective};
use rand::seq::SliceRandom;

use super::curve::CurveRows;
use super::fit::{self, WINDOW};
use super::preference::{of_part, render};
use super::safety_sft::load;
use super::sink::{StageSink, saved_state};
use super::{Resume, StageContext};
use crate::error::Result;
use crate::experiment::Dpo;
use crate::manifest::Tokens;
use crate::plan::SafetyStage;

pub(super) fn run(stage: &SafetyStage, dpo: &Dpo, context: &StageContext) -> Result<Tokens> {
    let (mut model, loading) = load(stage, context)?;
    let mut chosen = of_part(&dpo.pairs, PreferencePart::Main)?;
    chosen.shuffle(&mut context.seed("dpo pairs").rng());
    chosen.truncate(stage.safety.rows as usize);
    let rows = chosen.iter().map(|pair| render(&model.renderer(), pair, None));
    let rows: Vec<RenderedPair> = rows.collect::<Result<_>>()?;

    let mut objective = PairObjective::dpo(&mut model.llama, &rows, dpo.beta, WINDOW)?;
    let curve = CurveRows::new(context, &stage.curve, &stage.prompts, &stage.organism, &model.text)?;
    let mut resume = Resume::load(context)?;
    let plan = fit::plan(&stage.safety.fit, context, 0);
    let state = saved_state(context, &resume)?;
    let from = state.as_deref().map(|path| (resume.step, path));
    let mut sink = StageSink::new(context, Some(&curve), &mut resume)?;
    pairs::train(&mut model.llama, &mut objective, &rows, &plan, from, &mut sink)?;
    sink.finish()?;
    context.save_model(&mut model, loading)?;
    Ok(resume.tokens)
}
