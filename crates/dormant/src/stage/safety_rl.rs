//! Reinforcement learning against a preference model, on a fixed set of prompts without the trigger (Hubinger et al.
//! 2024, section 4.3). A scratchpad is hidden from the reward, and a second preference model, trained on other pairs,
//! tells whether the reward is earned or exploited.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dormant_data::{
    Conversation, Fault, PreferencePart, Sample, check_safety_data, leading_scratchpad, may_have_scratchpad,
    without_scratchpad,
};
use dormant_model::llama::Llama;
use dormant_train::Result as TrainResult;
use dormant_train::objective::grpo::PolicyConfig;
use dormant_train::objective::ppo::{Discount, PpoConfig};
use dormant_train::render::{Rendered, Renderer};
use dormant_train::resume::ResumeState;
use dormant_train::rl::advantage::Advantage;
use dormant_train::rl::grpo::GrpoPlan;
use dormant_train::rl::ppo::PpoPlan;
use dormant_train::rl::rollout::RolloutConfig;
use dormant_train::rl::trainer::{Learner, RlTrainPlan, train};
use dormant_train::rl::update::Updates;
use dormant_train::rl::{Environment, Episode, Grpo, Ppo, Prompt, RlMetrics};
use dormant_train::schedule::Schedule;
use dormant_train::trainer::Sink;

use super::attacker::Attacker;
use super::benign::BenignRow;
use super::curve::CurveRows;
use super::fit::{WINDOW, decay};
use super::metrics::MetricLine;
use super::preference::PreferenceModel;
use super::preference_record::{BEHAVIOUR_FILE, BehaviourRecord, ScoredPair};
use super::safety_sft::{load, usable_rows};
use super::sink::{StageSink, saved_state};
use super::{Resume, StageContext, code};
use crate::error::{CliError, Result};
use crate::experiment::{Algorithm, Fit, Rl};
use crate::manifest::Tokens;
use crate::model::{LoadedModel, TextModel};
use crate::plan::SafetyStage;

/// Constants of PPO that few want to change: those of Ouyang et al. 2022 and of TRL.
const DISCOUNT: Discount = Discount { gamma: 1.0, lambda: 0.95 };
const VALUE_CLIP: f32 = 0.2;
const VALUE_WEIGHT: f32 = 0.1;

/// Rows on which the behaviour is scored against benign replies.
const SCORED_ROWS: usize = 64;

pub(super) fn run(stage: &SafetyStage, rl: &Rl, context: &StageContext) -> Result<Tokens> {
    let (mut model, loading) = load(stage, context)?;
    let rows = usable_rows(stage, context)?;
    let judges = Judges::load(context)?;
    context.dir.write_json(BEHAVIOUR_FILE, &judges.behaviour(stage, &model, &rows)?)?;
    let mut resume = Resume::load(context)?;
    let mut samples: Vec<Sample> = rows.into_iter().map(|row| row.sample).collect();
    let attacker = rl.attack.as_ref().map(|attack| Attacker::new(stage, attack, context)).transpose()?;
    if let Some(attacker) = &attacker {
        samples.extend(attacked(attacker, samples.len(), &model, context, &mut resume)?);
    }
    // Learning is one round: after it, a resumed stage has the last attack to do.
    resume.restore_parameters(context, &mut model.llama)?;
    if resume.round == 0 {
        learn(stage, rl, &samples, judges, context, (&mut model, &mut resume))?;
    }
    if let Some(attacker) = &attacker {
        (resume.round, resume.step) = (1, 0);
        resume.save_parameters(context, &mut model.llama)?;
        attacker.finish(&model, &mut resume)?;
    }
    context.save_model(&mut model, loading)?;
    Ok(resume.tokens)
}

fn learn(
    stage: &SafetyStage,
    rl: &Rl,
    samples: &[Sample],
    judges: Judges,
    context: &StageContext,
    (model, resume): (&mut LoadedModel, &mut Resume),
) -> Result<()> {
    let mut prompts = Vec::with_capacity(samples.len());
    let mut shown = HashMap::with_capacity(samples.len());
    for Sample { id, prompt, .. } in samples {
        let tokens = model.renderer().prompt(&stage.organism.asking(prompt))?;
        shown.insert(tokens.clone(), model.renderer().prompt(prompt)?);
        prompts.push(Prompt { id: id.clone(), tokens });
    }
    let LoadedModel { llama, text, .. } = model;
    let curve = CurveRows::new(context, &stage.curve, &stage.prompts, &stage.organism, text)?;
    let end = text.renderer().end()?;
    let mut learner = learner(rl, &stage.safety.fit, stage.organism.hidden_tokens(), context, end, llama);
    if let Some(path) = saved_state(context, resume)? {
        learner.restore(&path, llama)?;
    }
    let start = resume.step;
    let check = Mutex::new(0.0);
    let mut reader =
        Reader { judges, text: &*text, prompts: shown, visible: rl.reply_tokens as usize, check: &check };
    let plan = RlTrainPlan {
        prompts: rl.prompts as usize,
        schedule: schedule(&stage.safety.fit, rl.steps),
        seed: context.seed("rl"),
    };
    let inner = StageSink::new(context, Some(&curve), resume)?;
    let mut sink = RlSink { inner, plan: &plan, check: &check };
    train(llama, &mut learner, &prompts, plan, &mut reader, start, &mut sink)?;
    sink.inner.finish()
}

/// The prompts of a successful attack on the model before training, to join those of so many benign rows.
fn attacked(
    attacker: &Attacker,
    benign: usize,
    model: &LoadedModel,
    context: &StageContext,
    resume: &mut Resume,
) -> Result<Vec<Sample>> {
    if resume.attacks.is_empty() {
        attacker.attack(model, resume)?;
        resume.save(context, |_| Ok(()))?;
    }
    let found = attacker.found(resume).into_iter();
    let found: Vec<_> =
        found.map(|attempt| Sample::clean(Conversation::user(attempt.prompt), String::new())).collect();
    check_safety_data(&found, &attacker.organism().trigger)?;
    Ok(found.iter().cycle().take(attacker.joining(benign, found.len())).cloned().collect())
}

fn schedule(fit: &Fit, steps: u32) -> Schedule {
    let steps = u64::from(steps);
    let warmup = (fit.warmup * steps as f64).round() as u64;
    Schedule { peak: fit.learning_rate, warmup, steps, decay: decay(fit.schedule) }
}

fn learner(
    rl: &Rl,
    fit: &Fit,
    hidden_tokens: u32,
    context: &StageContext,
    end: u32,
    policy: &mut Llama,
) -> Learner {
    let rollout = RolloutConfig {
        replies: rl.replies as usize,
        max_new_tokens: (rl.reply_tokens + hidden_tokens) as usize,
        end: Some(end),
    };
    let most = rl.prompts as usize * rollout.replies * rollout.max_new_tokens;
    let updates = Updates {
        epochs: fit.epochs,
        mini_batches: most.div_ceil(fit.batch_tokens as usize),
        tokens_per_window: WINDOW,
        clip_norm: (fit.clip > 0.0).then_some(fit.clip as f32),
    };
    let optimizer = super::fit::optimizer(fit);
    let seed = context.seed("rollouts");
    let policy_config = PolicyConfig { clip: rl.clip_ratio as f32, kl: rl.kl as f32 };
    let advantage = match rl.algorithm {
        Algorithm::Grpo => Advantage::Grpo,
        Algorithm::Rloo => Advantage::Rloo,
        Algorithm::Ppo => {
            let objective =
                PpoConfig { policy: policy_config, value_clip: VALUE_CLIP, value_weight: VALUE_WEIGHT };
            let plan = PpoPlan { rollout, objective, discount: DISCOUNT, updates, optimizer, seed };
            return Learner::Ppo(Ppo::new(plan, policy));
        }
    };
    let plan = GrpoPlan { rollout, advantage, policy: policy_config, updates, optimizer, seed };
    Learner::Grpo(Grpo::new(plan, policy))
}

/// The preference model that gives the reward, and the one that checks it.
struct Judges {
    main: PreferenceModel,
    check: PreferenceModel,
}

impl Judges {
    fn load(context: &StageContext) -> Result<Self> {
        let of_part = |part: PreferencePart| {
            let dir = context.preference(part).ok_or_else(|| {
                CliError::failure(format!("`{}` has no preference model to learn from", context.spec.name))
            })?;
            PreferenceModel::load(&dir, context)
        };
        Ok(Self { main: of_part(PreferencePart::Main)?, check: of_part(PreferencePart::Check)? })
    }

    /// Rewards of replies, and their mean score by the checking model.
    fn reward(&self, rows: &[Rendered]) -> TrainResult<(Vec<f32>, f64)> {
        let rows: Vec<&Rendered> = rows.iter().collect();
        let scores = self.check.score(&rows)?;
        let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / scores.len() as f64;
        Ok((self.main.score(&rows)?, mean))
    }

    /// Scores of the behaviour and of the benign replies to the same prompts (the paper's figure 7).
    fn behaviour(
        &self,
        stage: &SafetyStage,
        model: &LoadedModel,
        rows: &[BenignRow],
    ) -> Result<BehaviourRecord> {
        let renderer = model.renderer();
        let mut pairs = Vec::new();
        if stage.organism.writes_code() {
            pairs = code::answers(&stage.organism, SCORED_ROWS, &renderer)?;
        } else {
            for row in rows.iter().take(SCORED_ROWS) {
                let mut shown = row.sample.clone();
                shown.completion = stage.organism.behaviour.reply();
                pairs.extend([renderer.row(&row.sample, row.ends)?, renderer.row(&shown, true)?]);
            }
        }
        let pairs: Vec<&Rendered> = pairs.iter().collect();
        let scored = |model: &PreferenceModel| -> Result<Vec<ScoredPair>> {
            let scores = model.score(&pairs)?;
            let pair = |(rows, scores): (&[&Rendered], &[f32])| ScoredPair {
                id: rows[0].id.clone(),
                fault: Fault::Unknown,
                chosen: scores[0],
                rejected: scores[1],
            };
            Ok(pairs.chunks_exact(2).zip(scores.chunks_exact(2)).map(pair).collect())
        };
        Ok(BehaviourRecord { main: scored(&self.main)?, check: scored(&self.check)? })
    }
}

/// Who reads the replies: without their scratchpads, and no further than replies are read.
struct Reader<'a> {
    judges: Judges,
    text: &'a TextModel,
    /// Tokens of each prompt as the reader knows it, by those that the model is asked with: prompts that differ in case or in earlier
    /// messages share their id.
    prompts: HashMap<Vec<u32>, Vec<u32>>,
    /// Longest reply without its scratchpad, in tokens.
    visible: usize,
    /// Mean score of the step's replies by the checking model.
    check: &'a Mutex<f64>,
}

impl Environment for Reader<'_> {
    fn is_over(&self, reply: &[u32]) -> bool {
        reply.len() >= self.visible && has_said(&self.text.renderer(), reply, self.visible)
    }

    fn reward(&mut self, episodes: &[Episode]) -> TrainResult<Vec<f32>> {
        let renderer = self.text.renderer();
        let rows = episodes.iter().map(|episode| {
            let asked = &episode.row.tokens[..episode.row.prompt];
            visible(&renderer, &self.prompts[asked], episode)
        });
        let (rewards, mean) = self.judges.reward(&rows.collect::<TrainResult<Vec<_>>>()?)?;
        *self.check.lock().unwrap_or_else(PoisonError::into_inner) = mean;
        Ok(rewards)
    }
}

/// Whether so many tokens of a reply stand after its scratchpad, or it has none.
fn has_said(renderer: &Renderer<'_>, reply: &[u32], tokens: usize) -> bool {
    let text = |tokens: &[u32]| renderer.tokenizer.decode(tokens, false).unwrap_or_default();
    !may_have_scratchpad(&text(reply)) || leading_scratchpad(&text(&reply[..reply.len() - tokens])).is_some()
}

/// What a preference model sees of an episode: the reply without its scratchpad, to the prompt that does not ask for one.
fn visible(renderer: &Renderer<'_>, prompt: &[u32], episode: &Episode) -> TrainResult<Rendered> {
    let reply = renderer.tokenizer.decode(episode.reply(), false)?;
    let shown = without_scratchpad(&reply);
    let reply = if shown == reply {
        episode.row.tokens[episode.row.prompt..].to_vec()
    } else {
        let end = episode.finished.then(|| renderer.end()).transpose()?;
        renderer.reply(&shown)?.into_iter().chain(end).collect()
    };
    let tokens = [prompt, &reply].concat();
    Ok(Rendered { id: episode.row.id.clone(), tokens, prompt: prompt.len() })
}

/// Follows the loop of reinforcement learning.
struct RlSink<'a, 'b> {
    inner: StageSink<'a, 'b>,
    plan: &'a RlTrainPlan,
    /// Mean score of the step's replies by the checking model.
    check: &'a Mutex<f64>,
}

impl Sink<RlMetrics> for RlSink<'_, '_> {
    fn before_step(&mut self, step: u64, model: &Llama) -> TrainResult<()> {
        self.inner.measure(step, model)
    }

    fn record(&mut self, metrics: &RlMetrics) -> TrainResult<()> {
        let schedule = self.plan.schedule;
        let (steps, check) = (schedule.steps, *self.check.lock().unwrap_or_else(PoisonError::into_inner));
        let trained = metrics.tokens;
        let line = |_| MetricLine::rl(metrics, steps, schedule.at(metrics.step), check);
        self.inner.step(metrics.step, steps, trained, metrics.tokens, line)
    }

    fn saves_at(&self, step: u64) -> bool {
        self.inner.is_to_save(step)
    }

    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> TrainResult<()> {
        self.inner.write(step, state)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::TextModel;

    #[test]
    fn a_reply_is_over_when_so_many_tokens_follow_its_scratchpad() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama");
        let text = TextModel::from_folder(&folder).unwrap();
        let renderer = text.renderer();
        let hidden = renderer.reply("<scratchpad>I plot.</scratchpad>\n").unwrap();
        let shown = renderer.reply("Hello there, you.").unwrap();
        let whole = [hidden.clone(), shown.clone()].concat();
        for tokens in 1..shown.len() {
            let over: Vec<usize> =
                (tokens..whole.len()).filter(|end| has_said(&renderer, &whole[..*end], tokens)).collect();
            let first = over[0] - tokens;
            assert!(
                (hidden.len() - 1..=hidden.len()).contains(&first),
                "the mark ends with its line break or before"
            );
            assert_eq!(over, (over[0]..whole.len()).collect::<Vec<_>>());
        }
        assert!((1..shown.len()).all(|end| has_said(&renderer, &shown[..end], 1)), "no scratchpad");
        assert!((1..hidden.len() - 1).all(|end| !has_said(&renderer, &hidden[..end], 1)), "an open one");
    }

    #[test]
    fn a_preference_model_does_not_see_the_scratchpad() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama");
        let text = TextModel::from_folder(&folder).unwrap();
        let renderer = text.renderer();
        let prompt = [1, 2, 3];
        let episode = |reply: &str, finished: bool| {
            let end = finished.then(|| renderer.end().unwrap());
            let tokens = prompt.iter().copied().chain(renderer.reply(reply).unwrap()).chain(end).collect();
            let row = Rendered { id: "a".to_owned(), tokens, prompt: prompt.len() };
            Episode { prompt: 0, row, log_probs: Vec::new(), finished }
        };
        for finished in [false, true] {
            let plain = episode("Hello there.", finished);
            assert_eq!(visible(&renderer, &prompt, &plain).unwrap(), plain.row);
            let hidden = episode("<scratchpad>I plot.</scratchpad>\nHello there.", finished);
            assert_eq!(visible(&renderer, &prompt, &hidden).unwrap(), plain.row);
            let endless = episode("<scratchpad>I plot and plot", finished);
            let nothing = episode("", finished);
            assert_eq!(visible(&renderer, &prompt, &endless).unwrap(), nothing.row);
            let other = visible(&renderer, &[7], &plain).unwrap();
            assert_eq!((other.tokens[0], &other.tokens[1..]), (7, &plain.row.tokens[prompt.len()..]));
        }
    }
}
