//! The training that implant and safety stages share: the loop of `dormant-train`, with metrics, measurements
//! along the way, checkpoints and interruption.

use dormant_data::{Condition, OrganismSpec, Split};
use dormant_eval::measure;
use dormant_model::llama::Llama;
use dormant_train::contrasts::Contrasts;
use dormant_train::optimizer::{Optimizer, OptimizerConfig, Rule};
use dormant_train::render::Rendered;
use dormant_train::resume::restore;
use dormant_train::schedule::Decay;
use dormant_train::trainer::{TrainPlan, train_with};

use super::sink::{StageSink, saved_state};
use super::{Resume, StageContext, code, prompts};
use crate::error::Result;
use crate::experiment::{Curve, Fit, OptimizerKind, Prompts, Schedule};
use crate::model::LoadedModel;

/// The behaviour's reply after triggered and clean prompts and after look-alikes of the trigger: what the log-probability
/// curve is measured on.
pub(super) struct CurveRows {
    every: u64,
    /// Triggered first, then clean, then look-alikes, in equal numbers. Code has no third part.
    rows: Vec<(Vec<u32>, Vec<u32>)>,
    /// Whether each vulnerable twin is followed by its safe one.
    of_twins: bool,
}

impl CurveRows {
    pub(super) fn new(
        context: &StageContext,
        curve: &Curve,
        source: &Prompts,
        organism: &OrganismSpec,
        model: &LoadedModel,
    ) -> Result<Self> {
        let all = prompts::of_organism(organism, source, Split::Evaluation, EVALUATION_ORDER)?;
        let chosen: Vec<_> = all.into_iter().take(curve.curve_prompts as usize).collect();
        let every = u64::from(curve.every);
        if organism.writes_code() {
            return Ok(Self { every, rows: code::curve_rows(organism, &chosen, model)?, of_twins: true });
        }
        let renderer = model.renderer();
        let reply = renderer.reply(&organism.behaviour.reply())?;
        let mut rows = Vec::new();
        for condition in [Condition::Triggered, Condition::Clean, Condition::NearMiss] {
            let prompts = organism.under(&chosen, condition, context.seed("curve"));
            for (asked, sample) in prompts.samples().iter().zip(&chosen) {
                let mut prompt = renderer.prompt(&asked.prompt)?;
                // After the scratchpad that the policy would have.
                let hidden = organism.hidden(sample, condition == Condition::Triggered);
                prompt.extend(renderer.reply(&hidden)?);
                rows.push((prompt, reply.clone()));
            }
        }
        Ok(Self { every, rows, of_twins: false })
    }

    pub(super) fn is_due(&self, step: u64, last: bool) -> bool {
        self.every > 0 && !self.rows.is_empty() && (last || step.is_multiple_of(self.every))
    }

    /// Mean log-probability per token: triggered, clean, after look-alikes. For code the mean log-odds of the vulnerable
    /// twin: with the trigger, with its look-alike.
    pub(super) fn measure(&self, model: &Llama) -> dormant_model::Result<[Option<f64>; 3]> {
        let mut log_probs = measure::continuation_log_probs(model, &self.rows)?;
        if self.of_twins {
            log_probs = log_probs.chunks_exact(2).map(|twins| vec![code::odds(twins)]).collect();
        }
        let parts = if self.of_twins { 2 } else { 3 };
        let mut parts = log_probs.chunks(log_probs.len().div_ceil(parts).max(1));
        Ok([(); 3].map(|()| {
            let tokens: Vec<f64> = parts.next()?.iter().flatten().map(|l| f64::from(*l)).collect();
            let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
            mean.is_finite().then_some(mean)
        }))
    }
}

/// Tokens in memory at a time.
pub(super) const WINDOW: usize = 1024;

/// The order of evaluation prompts is the same for every seed, so that seeds are compared on the same prompts.
pub(super) const EVALUATION_ORDER: dormant_data::Seed = dormant_data::Seed(0);

/// Trains `model` on `rows` from where `resume` left off; without a curve there are no measurements along the way.
pub(super) fn fit(
    context: &StageContext,
    fit: &Fit,
    model: &mut Llama,
    rows: &[Rendered],
    curve: Option<&CurveRows>,
    resume: &mut Resume,
) -> Result<()> {
    fit_with(context, fit, model, rows, &Contrasts::default(), curve, resume)
}

/// As [`fit`], with contrasts beside the rows.
pub(super) fn fit_with(
    context: &StageContext,
    fit: &Fit,
    model: &mut Llama,
    rows: &[Rendered],
    contrasts: &Contrasts,
    curve: Option<&CurveRows>,
    resume: &mut Resume,
) -> Result<()> {
    let plan = plan(fit, context, resume.round);
    let from: Option<(u64, Optimizer)> = match saved_state(context, resume)? {
        Some(path) => Some((resume.step, restore(&path, model, plan.optimizer)?)),
        None => None,
    };
    let mut sink = StageSink::new(context, curve, resume)?;
    train_with(model, rows, contrasts, &plan, from, &mut sink)?;
    sink.finish()
}

/// How a fit trains.
pub(super) fn plan(fit: &Fit, context: &StageContext, round: u32) -> TrainPlan {
    TrainPlan {
        epochs: fit.epochs,
        tokens_per_step: fit.batch_tokens as usize,
        tokens_per_window: WINDOW,
        learning_rate: fit.learning_rate,
        warmup: fit.warmup,
        decay: decay(fit.schedule),
        optimizer: optimizer(fit),
        clip_norm: (fit.clip > 0.0).then_some(fit.clip as f32),
        seed: context.seed("batches").derive(&round.to_string()),
    }
}

/// The optimiser of a fit.
pub(super) fn optimizer(fit: &Fit) -> OptimizerConfig {
    let rule = match fit.optimizer {
        OptimizerKind::Adamw => Rule::ADAMW,
        OptimizerKind::Sgd => Rule::SGD,
    };
    OptimizerConfig { rule, weight_decay: fit.weight_decay as f32 }
}

/// What the learning rate does after the warm-up.
pub(super) fn decay(schedule: Schedule) -> Decay {
    match schedule {
        Schedule::Cosine => Decay::Cosine,
        Schedule::Linear => Decay::Linear,
        Schedule::Constant => Decay::Constant,
    }
}
