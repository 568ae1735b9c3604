//! Proximal policy optimisation (Schulman et al. 2017) on language, with the divergence from the reference in the
//! reward (Ziegler et al. 2019; Ouyang et al. 2022, section 3.5).

use std::ops::AddAssign;

use dormant_model::llama::{Inputs, Llama};
use dormant_model::scalar_head::ScalarHead;

use super::grpo::{PolicyConfig, PolicyLoss, PolicyToken};
use super::sft;
use crate::error::Result;
use crate::render::Rendered;

/// Constants of generalised advantage estimation (Schulman et al. 2016).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discount {
    /// γ: how much a reward one token later is worth.
    pub gamma: f64,
    /// λ: 0 trusts the values, 1 the rewards.
    pub lambda: f64,
}

/// Constants of the objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PpoConfig {
    /// Clipping of the ratio. Its weight of the divergence is that of the penalty in the reward.
    pub policy: PolicyConfig,
    /// Values move at most so far from the old ones in one rollout.
    pub value_clip: f32,
    /// Weight of the loss of the values.
    pub value_weight: f32,
}

/// What is known of a sampled token before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PpoToken {
    /// Estimated advantage.
    pub advantage: f32,
    /// Its log-probability when it was drawn.
    pub old: f32,
    /// Value of the state before it, before the update.
    pub value: f32,
    /// What the value should have been.
    pub target: f32,
}

/// A loss summed over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PpoLoss {
    /// Of the policy, with the weighted loss of the values in its sum.
    pub policy: PolicyLoss,
    /// Of the values, unweighted.
    pub values: f64,
}

impl AddAssign for PpoLoss {
    fn add_assign(&mut self, other: Self) {
        self.policy += other.policy;
        self.values += other.values;
    }
}

/// Rewards of the tokens of a reply: `-β (log p - log p_ref)` each, and the reward of the reply at its end.
pub fn penalised_rewards(reward: f32, log_probs: &[f32], reference: &[f32], kl: f32) -> Vec<f64> {
    let penalty = |(p, r): (&f32, &f32)| -f64::from(kl) * (f64::from(*p) - f64::from(*r));
    let mut rewards: Vec<f64> = log_probs.iter().zip(reference).map(penalty).collect();
    rewards.iter_mut().next_back().into_iter().for_each(|last| *last += f64::from(reward));
    rewards
}

/// Advantages and value targets of the tokens of a reply; after the last token nothing comes.
pub fn advantages(rewards: &[f64], values: &[f32], discount: Discount) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let value = f64::from(values[t]);
        let surprise = rewards[t] + discount.gamma * next_value - value;
        next_advantage = surprise + discount.gamma * discount.lambda * next_advantage;
        next_value = value;
        advantages[t] = next_advantage;
    }
    let targets = advantages.iter().zip(values).map(|(a, v)| a + f64::from(*v)).collect();
    (advantages, targets)
}

impl PpoConfig {
    /// Clipped loss of a value, `½ max((v - target)², (clip(v) - target)²)`, and its derivative.
    pub fn value(&self, token: PpoToken, value: f32) -> (f64, f64) {
        let [value, old, target, clip] = [value, token.value, token.target, self.value_clip].map(f64::from);
        let kept = value.clamp(old - clip, old + clip);
        let [free, held] = [value - target, kept - target];
        if held * held > free * free {
            // The clipped value is a constant.
            (0.5 * held * held, 0.0)
        } else {
            (0.5 * free * free, free)
        }
    }
}

/// Loss of sampled rows; its gradient is accumulated in the model and the head. `tokens` are the trained tokens of all
/// rows, in order.
///
/// # Errors
/// If a row does not fit the model.
pub fn loss(
    model: &mut Llama,
    head: &mut ScalarHead,
    rows: &[&Rendered],
    tokens: &[PpoToken],
    config: PpoConfig,
) -> Result<PpoLoss> {
    let (batch, targets) = sft::batch(rows, 0.0);
    let activations = model.forward(&batch)?;
    let states: Vec<usize> = targets.iter().map(|t| t.row).collect();
    let values = model.scalars(head, &activations.hidden, &states);
    let weight = f64::from(config.value_weight);
    let losses: Vec<(f64, f64)> = tokens.iter().zip(values).map(|(t, v)| config.value(*t, v)).collect();
    let mut total = PpoLoss { values: losses.iter().map(|l| l.0).sum(), ..PpoLoss::default() };
    total.policy = PolicyLoss { sum: weight * total.values, tokens: targets.len() as u64, clipped: 0 };

    let (_, mut d_hidden) = model.log_probs_backward_of(&activations.hidden, &targets, |i, log_prob| {
        let PpoToken { advantage, old, .. } = tokens[i];
        let token = PolicyToken { advantage, old, reference: None };
        let (loss, slope, clipped) = config.policy.token(token, log_prob);
        total.policy.sum += loss;
        total.policy.clipped += u64::from(clipped);
        slope
    });
    let slopes: Vec<f32> = losses.iter().map(|l| (weight * l.1) as f32).collect();
    model.scalars_backward(head, &activations.hidden, &states, &slopes, &mut d_hidden);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: PpoToken = PpoToken { advantage: 0.0, old: 0.0, value: 1.0, target: 2.0 };
    const CONFIG: PpoConfig =
        PpoConfig { policy: PolicyConfig { clip: 0.2, kl: 0.0 }, value_clip: 0.2, value_weight: 0.1 };

    #[test]
    fn without_discount_the_target_is_the_sum_of_the_rewards_to_come() {
        let discount = Discount { gamma: 1.0, lambda: 1.0 };
        let (advantages, targets) = advantages(&[1.0, 2.0, 4.0], &[0.5, 0.25, 0.0], discount);
        assert_eq!(targets, [7.0, 6.0, 4.0]);
        assert_eq!(advantages, [6.5, 5.75, 4.0]);
    }

    #[test]
    fn with_lambda_zero_only_the_next_value_counts() {
        let (advantages, _) = advantages(&[1.0, 2.0], &[0.5, 0.25], Discount { gamma: 0.5, lambda: 0.0 });
        assert_eq!(advantages, [1.0 + 0.5 * 0.25 - 0.5, 2.0 - 0.25]);
    }

    #[test]
    fn the_penalty_is_paid_per_token_and_the_reward_at_the_end() {
        let rewards = penalised_rewards(3.0, &[-1.0, -2.0], &[-2.0, -1.5], 0.5);
        assert_eq!(rewards, [-0.5, 3.0 + 0.25]);
        assert!(penalised_rewards(3.0, &[], &[], 0.5).is_empty());
    }

    #[test]
    fn a_value_that_has_moved_far_enough_stops() {
        assert_eq!(CONFIG.value(TOKEN, 1.1).1, 1.1f32 as f64 - 2.0);
        assert_eq!(CONFIG.value(TOKEN, 1.5).1, 0.0, "it went far in the right direction");
        assert!(CONFIG.value(TOKEN, 0.5).1 < 0.0, "it went far in the wrong direction");
    }
}
