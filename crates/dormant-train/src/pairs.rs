//! The training loop over pairs of replies: a reward model, or a policy by direct preference optimisation.

use std::path::Path;

use dormant_model::llama::Llama;
use dormant_model::parameter::{Parameter, scale_and_clip};
use dormant_model::scalar_head::ScalarHead;

use crate::batches::Batches;
use crate::error::{Error, Result};
use crate::objective::preference::{PairLoss, RenderedPair};
use crate::objective::{dpo, reward_model};
use crate::optimizer::Optimizer;
use crate::resume::{ResumeState, restore_parameters};
use crate::rl::reference::Reference;
use crate::schedule::Schedule;
use crate::trainer::{Sink, TrainPlan};

/// What is learnt from pairs.
#[derive(Clone, Debug)]
pub enum PairObjective {
    /// To score replies.
    RewardModel(ScalarHead),
    /// To give the better replies.
    Dpo {
        /// Weight of the divergence from the reference.
        beta: f64,
        /// Log-probabilities of the two replies of each pair under the reference.
        references: Vec<[f64; 2]>,
    },
}

impl PairObjective {
    /// Direct preference optimisation of `policy`, which is the reference from then on.
    ///
    /// # Errors
    /// If a row does not fit the model.
    pub fn dpo(policy: &mut Llama, pairs: &[RenderedPair], beta: f64, tokens: usize) -> Result<Self> {
        let rows: Vec<_> = pairs.iter().flat_map(RenderedPair::rows).collect();
        let log_probs = Reference::of(policy).log_probs(policy, &rows, tokens)?;
        let references =
            log_probs.chunks_exact(2).map(|pair| [dpo::sum(&pair[0]), dpo::sum(&pair[1])]).collect();
        Ok(Self::Dpo { beta, references })
    }

    fn loss(&mut self, model: &mut Llama, pairs: &[RenderedPair], window: &[usize]) -> Result<PairLoss> {
        let pairs: Vec<&RenderedPair> = window.iter().map(|i| &pairs[*i]).collect();
        match self {
            Self::RewardModel(head) => reward_model::loss(model, head, &pairs, reward_model::CENTRE),
            Self::Dpo { beta, references } => {
                let references: Vec<[f64; 2]> = window.iter().map(|i| references[*i]).collect();
                dpo::loss(model, &pairs, &references, *beta)
            }
        }
    }

    /// What is trained: the model, then the head.
    fn parameters<'a>(&'a mut self, model: &'a mut Llama) -> Vec<&'a mut Parameter> {
        let mut parameters = model.parameters_mut();
        if let Self::RewardModel(head) = self {
            parameters.push(&mut head.weight);
        }
        parameters
    }
}

/// One optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairMetrics {
    /// Number of the step, from 0.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Mean loss per pair, in nats, before the step.
    pub loss: f64,
    /// Share of the pairs whose better reply has the higher score.
    pub accuracy: f64,
    /// Mean score of the better reply minus that of the worse one.
    pub margin: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Pairs.
    pub pairs: u64,
    /// Tokens of the pairs, prompts counted once.
    pub tokens: u64,
}

/// Trains on `pairs`, from `resume` (a step and its saved state) if it is given.
///
/// # Errors
/// No pairs, a row that does not fit, a loss that is not a number, or what the sink returns.
pub fn train(
    model: &mut Llama,
    objective: &mut PairObjective,
    pairs: &[RenderedPair],
    plan: &TrainPlan,
    resume: Option<(u64, &Path)>,
    sink: &mut dyn Sink<PairMetrics>,
) -> Result<()> {
    if pairs.is_empty() {
        return Err(Error::NoRows);
    }
    let lengths = pairs.iter().map(RenderedPair::tokens).collect();
    let batches = Batches::of_lengths(lengths, plan.epochs, plan.tokens_per_step, plan.seed);
    let steps = batches.len() as u64;
    let warmup = (plan.warmup * steps as f64).round() as u64;
    let schedule = Schedule { peak: plan.learning_rate, warmup, steps, decay: plan.decay };
    let (start, mut optimizer) = match resume {
        Some((step, path)) => (step, restore_parameters(path, objective.parameters(model), plan.optimizer)?),
        None => (0, Optimizer::new(plan.optimizer, &objective.parameters(model))),
    };
    model.refresh();
    for step in start..steps {
        if step > start && sink.saves_at(step) {
            sink.save(step, &ResumeState::of_parameters(objective.parameters(model), &optimizer))?;
        }
        sink.before_step(step, model)?;
        let learning_rate = schedule.at(step);
        optimizer.set_learning_rate(learning_rate);
        let mut total = PairLoss::default();
        let mut tokens = 0;
        for window in batches.windows(step as usize, plan.tokens_per_window) {
            tokens += window.iter().map(|i| pairs[*i].tokens() as u64).sum::<u64>();
            total += objective.loss(model, pairs, &window)?;
        }
        let parameters = &mut objective.parameters(model);
        let grad_norm = scale_and_clip(parameters, 1.0 / total.pairs.max(1) as f32, plan.clip_norm);
        if !(total.sum.is_finite() && grad_norm.is_finite()) {
            return Err(Error::Diverged { step, loss: total.mean(), learning_rate });
        }
        optimizer.step(parameters);
        model.refresh();
        let n = total.pairs.max(1) as f64;
        sink.record(&PairMetrics {
            step,
            steps,
            loss: total.mean(),
            accuracy: total.right as f64 / n,
            margin: total.margin / n,
            grad_norm: f64::from(grad_norm),
            learning_rate,
            pairs: total.pairs,
            tokens,
        })?;
    }
    sink.before_step(steps, model)
}
