//! Steps of group relative policy optimisation: sample, score, update.

use std::path::PathBuf;
use std::time::Instant;

use dormant_data::Seed;
use dormant_model::linear::Trained;
use dormant_model::llama::Saving;
use dormant_train::objective::grpo::PolicyConfig;
use dormant_train::optimizer::OptimizerConfig;
use dormant_train::rl::advantage::Advantage;
use dormant_train::rl::grpo::GrpoPlan;
use dormant_train::rl::rollout::RolloutConfig;
use dormant_train::rl::update::Updates;
use dormant_train::rl::{Episode, Grpo, Prompt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Result;
use crate::model::Model;
use crate::request::Precision;

/// LoRA on all projections, on the same prompts in every step; no reference, as is TRL's default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grouped {
    pub(crate) prompts: Vec<Vec<u32>>,
    /// Replies per prompt.
    pub(crate) replies: usize,
    pub(crate) new_tokens: usize,
    pub(crate) steps: u64,
    pub(crate) lr: f64,
    #[serde(default)]
    pub(crate) precision: Precision,
    /// PEFT folder of the adapter to start from.
    pub(crate) adapter: PathBuf,
}

pub(crate) fn answer(model: &mut Model, request: &Grouped) -> Result<Value> {
    let mut policy =
        model.trainable(Trained::Lora, request.precision, Saving::Nothing, Some(&request.adapter))?;
    let prompt =
        |(index, tokens): (usize, &Vec<u32>)| Prompt { id: index.to_string(), tokens: tokens.clone() };
    let prompts: Vec<Prompt> = request.prompts.iter().enumerate().map(prompt).collect();
    let rollout = RolloutConfig { replies: request.replies, max_new_tokens: request.new_tokens, end: None };
    let plan = GrpoPlan {
        rollout,
        advantage: Advantage::Grpo,
        policy: PolicyConfig { clip: 0.2, kl: 0.0 },
        updates: Updates::default(),
        optimizer: OptimizerConfig::default(),
        seed: Seed(0),
    };
    let mut grpo = Grpo::new(plan, &mut policy);
    grpo.optimizer.set_learning_rate(request.lr);
    let mut seconds = Vec::new();
    let mut rewards = Vec::new();
    for step in 0..request.steps {
        let start = Instant::now();
        let metrics = grpo.step(&mut policy, step, &prompts, &mut |episodes: &[Episode]| {
            Ok(episodes.iter().map(even_tokens).collect())
        })?;
        seconds.push(start.elapsed().as_secs_f64());
        rewards.push(metrics.reward);
    }
    let warm = seconds.get(1..).unwrap_or_default();
    Ok(json!({
        "precision": request.precision.name(),
        "seconds": seconds,
        "rewards": rewards,
        "warm_steps_per_second": warm.len() as f64 / warm.iter().sum::<f64>(),
    }))
}

/// Share of even tokens: cheap, and different for nearly all replies.
fn even_tokens(episode: &Episode) -> f32 {
    let reply = episode.reply();
    reply.iter().filter(|token| token.is_multiple_of(2)).count() as f32 / reply.len().max(1) as f32
}
