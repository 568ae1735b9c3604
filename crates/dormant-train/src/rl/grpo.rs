//! Group relative policy optimisation (Shao et al. 2024), and REINFORCE with a leave-one-out baseline (Ahmadian et al.
//! 2024), which differs in its [`Advantage`].

use dormant_data::Seed;
use dormant_model::llama::Llama;

use super::advantage::Advantage;
use super::reference::Reference;
use super::rollout::{Episode, Prompt, RolloutConfig, sample};
use super::update::{Updates, group, windows};
use super::{Environment, RlMetrics, score};
use crate::error::Result;
use crate::objective::grpo::{self, PolicyConfig, PolicyLoss, PolicyToken};
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::render::Rendered;

/// How to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrpoPlan {
    /// Sampling.
    pub rollout: RolloutConfig,
    /// What a reward is compared with.
    pub advantage: Advantage,
    /// Clipping, and the weight of the divergence from the reference; the reference is asked only if it has one.
    pub policy: PolicyConfig,
    /// Optimiser steps per rollout.
    pub updates: Updates,
    /// Optimiser.
    pub optimizer: OptimizerConfig,
    /// Decides the draws and the order of the updates.
    pub seed: Seed,
}

/// What learns, apart from the policy itself.
#[derive(Clone, Debug)]
pub struct Grpo {
    /// How.
    pub plan: GrpoPlan,
    /// Where the policy began.
    pub reference: Reference,
    /// Moments of the policy's parameters. Its learning rate is for the caller to set.
    pub optimizer: Optimizer,
}

impl Grpo {
    /// Begins at `policy`, which is the reference from then on.
    pub fn new(plan: GrpoPlan, policy: &mut Llama) -> Self {
        let optimizer = Optimizer::new(plan.optimizer, &policy.parameters_mut());
        Self { plan, reference: Reference::of(policy), optimizer }
    }

    /// One step: sample, score, compare, update.
    ///
    /// # Errors
    /// Prompts that do not fit the model; rewards that are missing or no numbers, and the errors of `environment`; a loss
    /// that is not a number.
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
        let advantages = plan.advantage.of(&rewards, plan.rollout.replies);
        let references = self.reference_log_probs(policy, &episodes)?;
        let tokens = policy_tokens(&episodes, &advantages, references.as_deref());

        let mut total = PolicyLoss::default();
        let mut grad_norm = 0.0f64;
        for groups in plan.updates.plan(prompts.len(), seed.derive("updates")) {
            let chosen: Vec<usize> = groups.iter().flat_map(|g| group(*g, plan.rollout.replies)).collect();
            let loss = self.accumulate(policy, &chosen, &episodes, &tokens)?;
            let parameters = &mut policy.parameters_mut();
            let norm = plan.updates.take(parameters, &mut self.optimizer, &loss, step)?;
            policy.refresh();
            grad_norm = grad_norm.max(norm);
            total += loss;
        }
        Ok(RlMetrics::new(step, &episodes, &rewards, references.as_deref(), &total, grad_norm))
    }

    fn reference_log_probs(
        &mut self,
        policy: &mut Llama,
        episodes: &[Episode],
    ) -> Result<Option<Vec<Vec<f32>>>> {
        if self.plan.policy.kl == 0.0 {
            return Ok(None);
        }
        let rows: Vec<&Rendered> = episodes.iter().map(|e| &e.row).collect();
        let tokens = self.plan.updates.tokens_per_window;
        self.reference.log_probs(policy, &rows, tokens).map(Some)
    }

    /// Loss of the chosen episodes; its gradient is accumulated. An episode whose tokens all have a zero gradient
    /// counts, but is not computed.
    fn accumulate(
        &self,
        policy: &mut Llama,
        chosen: &[usize],
        episodes: &[Episode],
        tokens: &[Vec<PolicyToken>],
    ) -> Result<PolicyLoss> {
        let config = self.plan.policy;
        let teaches = |e: &usize| config.kl != 0.0 || tokens[*e].iter().any(|t| t.advantage != 0.0);
        let (taught, idle): (Vec<usize>, Vec<usize>) = chosen.iter().partition(|e| teaches(e));
        let rows: Vec<&Rendered> = taught.iter().map(|e| &episodes[*e].row).collect();
        let idle = idle.iter().map(|e| tokens[*e].len() as u64).sum();
        let mut total = PolicyLoss { tokens: idle, ..PolicyLoss::default() };
        for window in windows(&rows, self.plan.updates.tokens_per_window) {
            let tokens: Vec<PolicyToken> =
                taught[window.clone()].iter().flat_map(|e| tokens[*e].iter().copied()).collect();
            total += grpo::loss(policy, &rows[window], &tokens, config)?;
        }
        Ok(total)
    }
}

fn policy_tokens(
    episodes: &[Episode],
    advantages: &[f32],
    references: Option<&[Vec<f32>]>,
) -> Vec<Vec<PolicyToken>> {
    let of_episode = |(index, (episode, &advantage)): (usize, (&Episode, &f32))| {
        let token = |(position, &old): (usize, &f32)| {
            let reference = references.map(|r| r[index][position]);
            PolicyToken { advantage, old, reference }
        };
        episode.log_probs.iter().enumerate().map(token).collect()
    };
    episodes.iter().zip(advantages).enumerate().map(of_episode).collect()
}
