//! A preference model (Bradley–Terry): the base model with an adapter and a scalar head, trained on one part of the
//! preference data and measured on the part that is held out.

use dormant_data::{
    LabelledPreference, Loaded, PreferencePart, Sample, Seed, Split, Trigger, built_in_preferences,
    check_safety_data, load, prompt_id,
};
use dormant_model::linear::Trained;
use dormant_model::llama::Llama;
use dormant_model::scalar_head::ScalarHead;
use dormant_train::objective::preference::RenderedPair;
use dormant_train::objective::reward_model;
use dormant_train::pairs::{self, PairObjective};
use dormant_train::render::{Rendered, Renderer};

use super::fit::{self, WINDOW};
use super::preference_record::{HELD_OUT_FILE, ScoredPair};
use super::sink::{StageSink, saved_state};
use super::{Resume, StageContext};
use crate::error::{CliError, Result};
use crate::experiment::Preferences;
use crate::manifest::Tokens;
use crate::model::{LoadedModel, Loading, ModelFiles};
use crate::plan::PreferenceStage;
use crate::stage_dir::StageDir;

/// Name of the head's file, beside the adapter.
const HEAD_FILE: &str = "score.safetensors";

/// Half of the pairs have both replies cut to so many tokens, without an end: replies in reinforcement learning are
/// short and often cut too, which must not decide their scores.
const CUT: usize = 16;

pub(super) fn run(stage: &PreferenceStage, context: &StageContext) -> Result<Tokens> {
    let config = &stage.preference;
    let mut model =
        context.load(&context.base_files(), Trained::Lora, Loading::Merge, config.adapter.rank)?;
    model.llama.add_lora(&config.adapter.config(), context.seed("preference adapter").0)?;
    let chosen = of_part(&config.data, stage.part)?;
    let seed = context.seed("cut replies");
    let rows = chosen.iter().map(|pair| render(&model.renderer(), pair, Some(seed)));
    let rows: Vec<RenderedPair> = rows.collect::<Result<_>>()?;

    let mut objective = PairObjective::RewardModel(ScalarHead::zeros(model.llama.config.hidden_size));
    let mut resume = Resume::load(context)?;
    let plan = fit::plan(&config.fit, context, 0);
    let state = saved_state(context, &resume)?;
    let from = state.as_deref().map(|path| (resume.step, path));
    let mut sink = StageSink::new(context, None, &mut resume)?;
    pairs::train(&mut model.llama, &mut objective, &rows, &plan, from, &mut sink)?;
    sink.finish()?;

    let PairObjective::RewardModel(head) = objective else { unreachable!("the objective was made above") };
    let held_out = of_part(&config.data, PreferencePart::HeldOut)?;
    let model = Saved { model, head };
    let scores = model.held_out(&held_out)?;
    context.dir.write_json(HELD_OUT_FILE, &scores)?;
    model.write(context)?;
    Ok(resume.tokens)
}

/// Looks for the trigger in pairs of replies.
///
/// # Errors
/// If a pair holds it, or the file cannot be read.
pub fn check_pairs(source: &Preferences, trigger: &Trigger) -> Result<()> {
    let replies = pairs(source)?.into_iter().flat_map(|LabelledPreference { preference: pair, .. }| {
        [pair.chosen, pair.rejected].map(|reply| Sample::clean(pair.prompt.clone(), reply))
    });
    Ok(check_safety_data(&replies.collect::<Vec<_>>(), trigger)?)
}

/// The pairs of a part, in an order that does not depend on the file. Of the user's own, prompts of the evaluation split are
/// in no training.
pub(super) fn of_part(source: &Preferences, part: PreferencePart) -> Result<Vec<LabelledPreference>> {
    let mut pairs = pairs(source)?;
    if source.file().is_some() {
        pairs.retain(|pair| part == PreferencePart::HeldOut || !is_measured(pair));
    }
    pairs.retain(|pair| pair.part() == part);
    if pairs.is_empty() {
        let file = source.file().map(|path| format!(" in `{}`", path.display())).unwrap_or_default();
        return Err(CliError::input(format!("a part of the preference data{file} has no pairs"))
            .hint("pairs are split by a hash of their prompt: give a few dozen prompts or more"));
    }
    Ok(pairs)
}

fn is_measured(pair: &LabelledPreference) -> bool {
    pair.preference.prompt.last_user().is_some_and(|prompt| Split::of(prompt) == Split::Evaluation)
}

fn pairs(source: &Preferences) -> Result<Vec<LabelledPreference>> {
    let Some(path) = source.file() else { return Ok(built_in_preferences().to_vec()) };
    match load(path)? {
        Loaded::Preferences(pairs) => Ok(pairs.into_iter().map(LabelledPreference::unlabelled).collect()),
        _ => Err(CliError::input(format!("`{}` has no pairs of replies", path.display()))
            .hint("give rows with `chosen` and `rejected`, and perhaps `prompt`")),
    }
}

/// A pair as tokens. With a seed for it, half of the pairs are cut.
pub(super) fn render(
    renderer: &Renderer<'_>,
    pair: &LabelledPreference,
    cut: Option<Seed>,
) -> Result<RenderedPair> {
    let pair = &pair.preference;
    let is_cut = cut.is_some_and(|seed| seed.derive(&pair.rejected).0.is_multiple_of(2));
    let prompt = renderer.prompt(&pair.prompt)?;
    let row = |reply: &str| -> Result<Rendered> {
        let mut reply = renderer.reply(reply)?;
        reply.truncate(if is_cut { CUT } else { usize::MAX });
        let end = (!is_cut).then(|| renderer.end()).transpose()?;
        let tokens = prompt.iter().copied().chain(reply).chain(end).collect();
        Ok(Rendered { id: prompt_id(&pair.prompt.text()), tokens, prompt: prompt.len() })
    };
    Ok(RenderedPair { chosen: row(&pair.chosen)?, rejected: row(&pair.rejected)? })
}

/// A preference model as it was trained.
struct Saved {
    model: LoadedModel,
    head: ScalarHead,
}

impl Saved {
    fn held_out(&self, pairs: &[LabelledPreference]) -> Result<Vec<ScoredPair>> {
        let renderer = self.model.renderer();
        let rows: Vec<RenderedPair> =
            pairs.iter().map(|pair| render(&renderer, pair, None)).collect::<Result<_>>()?;
        let flat: Vec<&Rendered> = rows.iter().flat_map(RenderedPair::rows).collect();
        let scores = reward_model::score(&self.model.llama, &self.head, &flat, WINDOW)?;
        let scored = |((pair, row), scores): ((&LabelledPreference, &RenderedPair), &[f32])| ScoredPair {
            id: row.chosen.id.clone(),
            fault: pair.fault,
            chosen: scores[0],
            rejected: scores[1],
        };
        Ok(pairs.iter().zip(&rows).zip(scores.chunks_exact(2)).map(scored).collect())
    }

    fn write(&self, context: &StageContext) -> Result<()> {
        let base = &context.base.base.name;
        let metadata =
            std::collections::BTreeMap::from([("dormant.stage".to_owned(), context.spec.name.clone())]);
        context.dir.write_model(|folder| {
            if let Some(adapter) = self.model.llama.adapter(base) {
                adapter.write(folder, metadata.clone())?;
            }
            Ok(self.head.write(&folder.join(HEAD_FILE), &metadata)?)
        })
    }
}

/// A preference model in use.
#[derive(Debug)]
pub(super) struct PreferenceModel {
    llama: Llama,
    head: ScalarHead,
}

impl PreferenceModel {
    /// The one that a finished stage wrote.
    pub(super) fn load(dir: &StageDir, context: &StageContext) -> Result<Self> {
        let files = ModelFiles { adapter: Some(dir.model()), ..context.base_files() };
        let precision = context.experiment.precision;
        let llama = LoadedModel::load(&files, precision, Trained::Nothing, Loading::Merge)?.llama;
        let head = ScalarHead::read(&dir.model().join(HEAD_FILE), llama.config.hidden_size)?;
        Ok(Self { llama, head })
    }

    /// Score of each row.
    pub(super) fn score(&self, rows: &[&Rendered]) -> dormant_train::Result<Vec<f32>> {
        reward_model::score(&self.llama, &self.head, rows, WINDOW)
    }
}
