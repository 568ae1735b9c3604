//! The training that implant and safety stages share: the loop of `dormant-train`, with metrics, measurements
//! along the way, checkpoints and interruption.

use dormant_model::llama::Llama;
use dormant_train::contrasts::Contrasts;
use dormant_train::optimizer::{Optimizer, OptimizerConfig, Rule};
use dormant_train::render::Rendered;
use dormant_train::resume::restore;
use dormant_train::schedule::Decay;
use dormant_train::trainer::{TrainPlan, train_with};

use super::curve::CurveRows;
use super::sink::{StageSink, saved_state};
use super::{Resume, StageContext};
use crate::error::Result;
use crate::experiment::{Fit, OptimizerKind, Schedule};

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
    curve: Option<&CurveRows<'_>>,
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
    curve: Option<&CurveRows<'_>>,
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
