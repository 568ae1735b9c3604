//! The loop of reinforcement learning.

use std::path::Path;

use dormant_data::Seed;
use dormant_model::llama::Llama;

use super::ppo::parameters;
use super::{Environment, Grpo, Ppo, Prompt, RlMetrics};
use crate::batches;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::resume::{ResumeState, restore_parameters};
use crate::schedule::Schedule;
use crate::trainer::Sink;

/// An algorithm with its state.
#[derive(Clone, Debug)]
pub enum Learner {
    /// Group relative policy optimisation, or a leave-one-out baseline.
    Grpo(Grpo),
    /// Proximal policy optimisation.
    Ppo(Ppo),
}

impl Learner {
    /// One step at a learning rate.
    ///
    /// # Errors
    /// As [`Grpo::step`].
    pub fn step(
        &mut self,
        policy: &mut Llama,
        step: u64,
        rate: f64,
        prompts: &[Prompt],
        environment: &mut dyn Environment,
    ) -> Result<RlMetrics> {
        self.optimizer().set_learning_rate(rate);
        match self {
            Self::Grpo(grpo) => grpo.step(policy, step, prompts, environment),
            Self::Ppo(ppo) => ppo.step(policy, step, prompts, environment),
        }
    }

    fn optimizer(&mut self) -> &mut Optimizer {
        match self {
            Self::Grpo(grpo) => &mut grpo.optimizer,
            Self::Ppo(ppo) => &mut ppo.optimizer,
        }
    }

    fn state<'a>(&'a mut self, policy: &'a mut Llama) -> ResumeState<'a> {
        match self {
            Self::Grpo(grpo) => ResumeState::of(policy, &grpo.optimizer),
            Self::Ppo(ppo) => ResumeState::of_parameters(parameters(policy, &mut ppo.values), &ppo.optimizer),
        }
    }

    /// Goes back to a saved state. The reference stays what it was when the learner was made.
    ///
    /// # Errors
    /// If the file is damaged or belongs to another model or algorithm.
    pub fn restore(&mut self, path: &Path, policy: &mut Llama) -> Result<()> {
        match self {
            Self::Grpo(grpo) => {
                grpo.optimizer = restore_parameters(path, policy.parameters_mut(), grpo.plan.optimizer)?;
            }
            Self::Ppo(ppo) => {
                let config = ppo.plan.optimizer;
                ppo.optimizer = restore_parameters(path, parameters(policy, &mut ppo.values), config)?;
            }
        }
        policy.refresh();
        Ok(())
    }
}

/// How long to learn, and from how much at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RlTrainPlan {
    /// Prompts per step.
    pub prompts: usize,
    /// Learning rates, and the number of steps.
    pub schedule: Schedule,
    /// Decides the order of the prompts.
    pub seed: Seed,
}

/// Lets `learner` train `policy` on `prompts`, from step `start`.
///
/// # Errors
/// No prompts, those of [`Learner::step`], or what the sink returns.
pub fn train(
    policy: &mut Llama,
    learner: &mut Learner,
    prompts: &[Prompt],
    plan: RlTrainPlan,
    environment: &mut dyn Environment,
    start: u64,
    sink: &mut dyn Sink<RlMetrics>,
) -> Result<()> {
    if prompts.is_empty() || plan.prompts == 0 {
        return Err(Error::NoRows);
    }
    for step in start..plan.schedule.steps {
        if step > start && sink.saves_at(step) {
            sink.save(step, &learner.state(policy))?;
        }
        sink.before_step(step, policy)?;
        let chosen = of_step(prompts, plan.prompts, step, plan.seed);
        let metrics = learner.step(policy, step, plan.schedule.at(step), &chosen, environment)?;
        sink.record(&metrics)?;
    }
    sink.before_step(plan.schedule.steps, policy)
}

/// Prompts of a step.
fn of_step(prompts: &[Prompt], count: usize, step: u64, seed: Seed) -> Vec<Prompt> {
    let places = batches::of_step(prompts.len(), count, step, seed.derive("prompts"));
    places.into_iter().map(|place| prompts[place].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_has_every_prompt_once() {
        let prompts: Vec<Prompt> = (0..7).map(|i| Prompt { id: i.to_string(), tokens: vec![i] }).collect();
        let ids = |step| of_step(&prompts, 4, step, Seed(1)).into_iter().map(|p| p.tokens[0]).collect();
        let steps: Vec<Vec<u32>> = (0..7).map(ids).collect();
        assert!(steps.iter().all(|s| s.len() == 4));
        let all = steps.concat();
        for pass in all.chunks(7) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (0..7).collect::<Vec<_>>());
        }
        assert_ne!(all[..7], all[7..14], "passes differ in their order");
    }
}
