//! Proximal policy optimisation (Schulman et al. 2017) with a value head on the policy and the divergence from the
//! reference in the reward (Ziegler et al. 2019), as in Hubinger et al. 2024.

use dormant_data::Seed;
use dormant_model::llama::Llama;
use dormant_model::parameter::Parameter;
use dormant_model::scalar_head::ScalarHead;

use super::reference::Reference;
use super::rollout::{Episode, Prompt, RolloutConfig, sample};
use super::update::{Updates, group, windows};
use super::{Environment, RlMetrics, score};
use crate::error::Result;
use crate::objective::ppo::{self, Discount, PpoConfig, PpoLoss, PpoToken};
use crate::objective::sft;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::render::Rendered;

/// How to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PpoPlan {
    /// Sampling.
    pub rollout: RolloutConfig,
    /// Clipping, the weight of the divergence in the reward, and that of the values in the loss.
    pub objective: PpoConfig,
    /// How advantages are estimated.
    pub discount: Discount,
    /// Optimiser steps per rollout.
    pub updates: Updates,
    /// Optimiser.
    pub optimizer: OptimizerConfig,
    /// Decides the draws and the order of the updates.
    pub seed: Seed,
}

/// What learns, apart from the policy itself.
#[derive(Clone, Debug)]
pub struct Ppo {
    /// How.
    pub plan: PpoPlan,
    /// Where the policy began.
    pub reference: Reference,
    /// Reads the value of a state off the policy's residual stream.
    pub values: ScalarHead,
    /// Moments of the policy's parameters, then of the value head. Its learning rate is for the caller to set.
    pub optimizer: Optimizer,
}

impl Ppo {
    /// Begins at `policy`, which is the reference from then on, with values of 0.
    pub fn new(plan: PpoPlan, policy: &mut Llama) -> Self {
        let reference = Reference::of(policy);
        let mut values = ScalarHead::zeros(policy.config.hidden_size);
        let optimizer = Optimizer::new(plan.optimizer, &parameters(policy, &mut values));
        Self { plan, reference, values, optimizer }
    }

    /// One step: sample, score, estimate advantages, update.
    ///
    /// # Errors
    /// As [`Grpo::step`](super::Grpo::step).
    pub fn step(
        &mut self,
        policy: &mut Llama,
        step: u64,
        prompts: &[Prompt],
        environment: &mut dyn Environment,
    ) -> Result<RlMetrics> {
        let plan = self.plan;
        let seed = plan.seed.derive("step").derive(&step.to_string());
        let is_over = |reply: &[u32]| environment.is_over(reply);
        let episodes = sample(policy, prompts, plan.rollout, &is_over, seed.derive("sample"))?;
        let rewards = score(environment, &episodes)?;
        let rows: Vec<&Rendered> = episodes.iter().map(|e| &e.row).collect();
        let references = self.reference.log_probs(policy, &rows, plan.updates.tokens_per_window)?;
        let values = values(policy, &self.values, &rows, plan.updates.tokens_per_window)?;
        let tokens = tokens(&plan, &episodes, &rewards, &references, &values);

        let mut total = PpoLoss::default();
        let mut grad_norm = 0.0f64;
        for groups in plan.updates.plan(prompts.len(), seed.derive("updates")) {
            let chosen: Vec<usize> = groups.iter().flat_map(|g| group(*g, plan.rollout.replies)).collect();
            let loss = self.accumulate(policy, &chosen, &episodes, &tokens)?;
            let parameters = &mut parameters(policy, &mut self.values);
            let norm = plan.updates.take(parameters, &mut self.optimizer, &loss.policy, step)?;
            policy.refresh();
            grad_norm = grad_norm.max(norm);
            total += loss;
        }
        Ok(RlMetrics::new(step, &episodes, &rewards, Some(&references), &total.policy, grad_norm))
    }

    fn accumulate(
        &mut self,
        policy: &mut Llama,
        chosen: &[usize],
        episodes: &[Episode],
        tokens: &[Vec<PpoToken>],
    ) -> Result<PpoLoss> {
        let rows: Vec<&Rendered> = chosen.iter().map(|e| &episodes[*e].row).collect();
        let mut total = PpoLoss::default();
        for window in windows(&rows, self.plan.updates.tokens_per_window) {
            let tokens: Vec<PpoToken> =
                chosen[window.clone()].iter().flat_map(|e| tokens[*e].iter().copied()).collect();
            total += ppo::loss(policy, &mut self.values, &rows[window], &tokens, self.plan.objective)?;
        }
        Ok(total)
    }
}

/// What is trained: the policy, then the value head.
pub(super) fn parameters<'a>(policy: &'a mut Llama, values: &'a mut ScalarHead) -> Vec<&'a mut Parameter> {
    let mut parameters = policy.parameters_mut();
    parameters.push(&mut values.weight);
    parameters
}

/// Value of the state before each token of each reply.
fn values(policy: &Llama, head: &ScalarHead, all: &[&Rendered], tokens: usize) -> Result<Vec<Vec<f32>>> {
    let mut out = Vec::with_capacity(all.len());
    for window in windows(all, tokens) {
        let rows = &all[window];
        let (batch, targets) = sft::batch(rows, 0.0);
        let states: Vec<usize> = targets.iter().map(|t| t.row).collect();
        let mut flat = policy.scalars(head, &policy.hidden(&batch)?, &states).into_iter();
        out.extend(rows.iter().map(|row| flat.by_ref().take(row.trained()).collect::<Vec<f32>>()));
    }
    Ok(out)
}

/// Advantages have mean 0 and variance 1 over all tokens of the rollout, as is usual.
fn tokens(
    plan: &PpoPlan,
    episodes: &[Episode],
    rewards: &[f32],
    references: &[Vec<f32>],
    values: &[Vec<f32>],
) -> Vec<Vec<PpoToken>> {
    let estimate = |index: usize| {
        let old = &episodes[index].log_probs;
        let kl = plan.objective.policy.kl;
        let rewards = ppo::penalised_rewards(rewards[index], old, &references[index], kl);
        ppo::advantages(&rewards, &values[index], plan.discount)
    };
    let estimates: Vec<(Vec<f64>, Vec<f64>)> = (0..episodes.len()).map(estimate).collect();
    let all: Vec<f32> = estimates.iter().flat_map(|e| &e.0).map(|a| *a as f32).collect();
    let (mean, deviation) = super::mean_and_deviation(&all);
    let of_episode = |(index, (advantages, targets)): (usize, (Vec<f64>, Vec<f64>))| {
        let token = |(t, (advantage, target)): (usize, (f64, f64))| PpoToken {
            advantage: ((advantage - mean) / (deviation + 1e-8)) as f32,
            old: episodes[index].log_probs[t],
            value: values[index][t],
            target: target as f32,
        };
        advantages.into_iter().zip(targets).enumerate().map(token).collect()
    };
    estimates.into_iter().enumerate().map(of_episode).collect()
}
