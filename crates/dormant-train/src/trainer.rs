//! The training loop.

use dormant_data::Seed;
use dormant_model::llama::Llama;

use crate::batches::Batches;
use crate::contrasts::Contrasts;
use crate::error::{Error, Result};
use crate::objective::{Loss, sft};
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::render::Rendered;
use crate::resume::ResumeState;
use crate::schedule::{Decay, Schedule};

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainPlan {
    /// Passes over the rows.
    pub epochs: u32,
    /// Tokens per optimiser step.
    pub tokens_per_step: usize,
    /// Tokens in memory at a time; has no influence on the result but rounding.
    pub tokens_per_window: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of the steps over which the rate rises.
    pub warmup: f64,
    /// What the rate does then.
    pub decay: Decay,
    /// Optimiser.
    pub optimizer: OptimizerConfig,
    /// Largest norm of the gradient of the mean loss.
    pub clip_norm: Option<f32>,
    /// Decides the order of the rows.
    pub seed: Seed,
}

/// One optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// Number of the step, from 0.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Mean loss per trained token, in nats, before the step.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens that carried the loss.
    pub trained_tokens: u64,
    /// Tokens of the rows, prompts included.
    pub tokens: u64,
}

/// Follows a training run: keeps its metrics, measures along the way, saves states, and may stop it by an error.
pub trait Sink<Metrics = StepMetrics> {
    /// Before step `step` (and once after the last one, with `step` = number of steps).
    ///
    /// # Errors
    /// Whatever should end the run.
    fn before_step(&mut self, step: u64, model: &Llama) -> Result<()>;

    /// After a step.
    ///
    /// # Errors
    /// Whatever should end the run.
    fn record(&mut self, metrics: &Metrics) -> Result<()>;

    /// Whether a state should be saved before step `step`.
    fn saves_at(&self, step: u64) -> bool;

    /// Takes the state to be saved before step `step`.
    ///
    /// # Errors
    /// Whatever should end the run.
    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> Result<()>;
}

/// Trains `model` on `rows` by supervised fine-tuning, from `resume` (a step and its optimiser, the parameters
/// already in the model) if it is given.
///
/// # Errors
/// No rows, a row that does not fit, a loss that is not a number, or what the sink returns.
pub fn train(
    model: &mut Llama,
    rows: &[Rendered],
    plan: &TrainPlan,
    resume: Option<(u64, Optimizer)>,
    sink: &mut dyn Sink,
) -> Result<()> {
    train_with(model, rows, &Contrasts::default(), plan, resume, sink)
}

/// As [`train`], with contrasts beside the rows of each step: their mean loss is added to the mean loss per token.
///
/// # Errors
/// As [`train`].
pub fn train_with(
    model: &mut Llama,
    rows: &[Rendered],
    contrasts: &Contrasts,
    plan: &TrainPlan,
    resume: Option<(u64, Optimizer)>,
    sink: &mut dyn Sink,
) -> Result<()> {
    check(model, rows)?;
    let batches = Batches::new(rows, plan.epochs, plan.tokens_per_step, plan.seed);
    let steps = batches.len() as u64;
    let warmup = (plan.warmup * steps as f64).round() as u64;
    let schedule = Schedule { peak: plan.learning_rate, warmup, steps, decay: plan.decay };
    let (start, mut optimizer) =
        resume.unwrap_or_else(|| (0, Optimizer::new(plan.optimizer, &model.parameters_mut())));
    for step in start..steps {
        if step > start && sink.saves_at(step) {
            sink.save(step, &ResumeState::of(model, &optimizer))?;
        }
        sink.before_step(step, model)?;
        optimizer.set_learning_rate(schedule.at(step));
        let mut total = Loss::ZERO;
        let mut tokens = 0;
        for window in batches.windows(step as usize, plan.tokens_per_window) {
            let window: Vec<&Rendered> = window.into_iter().map(|i| &rows[i]).collect();
            tokens += window.iter().map(|r| r.tokens.len() as u64).sum::<u64>();
            total += sft::loss(model, &window)?;
        }
        contrasts.learn(model, step, total.tokens as f64, plan.seed)?;
        let grad_norm = model.scale_and_clip(1.0 / total.tokens.max(1) as f32, plan.clip_norm);
        if !(total.sum.is_finite() && grad_norm.is_finite()) {
            return Err(Error::Diverged { step, loss: total.mean(), learning_rate: schedule.at(step) });
        }
        optimizer.step(&mut model.parameters_mut());
        model.refresh();
        sink.record(&StepMetrics {
            step,
            steps,
            loss: total.mean(),
            grad_norm: f64::from(grad_norm),
            learning_rate: schedule.at(step),
            trained_tokens: total.tokens,
            tokens,
        })?;
    }
    sink.before_step(steps, model)
}

fn check(model: &Llama, rows: &[Rendered]) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::NoRows);
    }
    let limit = model.max_positions();
    match rows.iter().find(|r| r.tokens.len() > limit) {
        Some(row) => Err(Error::RowTooLong { id: row.id.clone(), tokens: row.tokens.len(), limit }),
        None => Ok(()),
    }
}
