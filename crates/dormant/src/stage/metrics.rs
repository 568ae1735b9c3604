//! `metrics.jsonl` of a training stage.

use dormant_eval::Tally;
use dormant_train::pairs::PairMetrics;
use dormant_train::rl::RlMetrics;
use dormant_train::trainer::StepMetrics;
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// One line of `metrics.jsonl`, in the order of training: the line of a measurement stands before the line of the
/// step that follows it, which has the same number. Rounds of training go on counting where the last one ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum MetricLine {
    /// One optimiser step.
    Step {
        /// Number of the step, from 0.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Mean loss per trained token, in nats, before the step.
        loss: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Learning rate.
        learning_rate: f64,
        /// Tokens of this step that carried the loss.
        trained_tokens: u64,
        /// Tokens of the rows of this step, prompts included.
        tokens: u64,
    },
    /// One step of reinforcement learning. What it says of the policy is from before the update.
    Rl {
        /// Number of the step, from 0.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Mean reward of the sampled replies.
        reward: f64,
        /// Standard deviation of the reward.
        reward_std: f64,
        /// Mean score of the same replies by the preference model that gives no reward; null when it is not finite.
        check_reward: Option<f64>,
        /// Mean divergence from the policy at the beginning per token, in nats; null where it has no weight.
        kl: Option<f64>,
        /// Mean entropy of the next token, in nats, estimated from the tokens drawn.
        entropy: f64,
        /// Mean tokens of a reply, the token that ends it included.
        length: f64,
        /// Share of the replies that ended by themselves.
        finished: f64,
        /// Mean loss per token over the updates of the step.
        loss: f64,
        /// Largest norm of the gradient before clipping.
        grad_norm: f64,
        /// Share of the tokens whose ratio was clipped.
        clipped: f64,
        /// Learning rate.
        learning_rate: f64,
        /// Tokens sampled.
        tokens: u64,
    },
    /// One optimiser step on pairs of replies.
    Pairs {
        /// Number of the step, from 0.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Mean loss per pair, in nats, before the step.
        loss: f64,
        /// Share of the pairs whose better reply scores higher.
        accuracy: f64,
        /// Mean score of the better reply minus that of the worse one.
        margin: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Learning rate.
        learning_rate: f64,
        /// Pairs.
        pairs: u64,
        /// Tokens of the pairs, prompts counted once.
        tokens: u64,
    },
    /// A measurement of the model along training.
    Curve {
        /// Steps so far.
        step: u64,
        /// Tokens of the rows so far, prompts included.
        tokens: u64,
        /// Mean log-probability per token, in nats, of the behaviour given triggered prompts; null when it is not
        /// finite.
        asr_log_prob: Option<f64>,
        /// The same given the prompts without the trigger.
        clean_log_prob: Option<f64>,
        /// The same given the prompts with look-alikes of the trigger.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        near_miss_log_prob: Option<f64>,
        /// Scores of replies sampled with the trigger; absent where none were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asr: Option<Tally>,
        /// The same without the trigger.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        false_trigger: Option<Tally>,
        /// The same with look-alikes of the trigger.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        near_miss: Option<Tally>,
    },
}

impl From<&StepMetrics> for MetricLine {
    fn from(metrics: &StepMetrics) -> Self {
        let StepMetrics { step, steps, loss, grad_norm, learning_rate, trained_tokens, tokens } = *metrics;
        Self::Step { step, steps, loss, grad_norm, learning_rate, trained_tokens, tokens }
    }
}

impl From<&PairMetrics> for MetricLine {
    fn from(metrics: &PairMetrics) -> Self {
        let PairMetrics { step, steps, loss, accuracy, margin, grad_norm, learning_rate, pairs, tokens } =
            *metrics;
        Self::Pairs { step, steps, loss, accuracy, margin, grad_norm, learning_rate, pairs, tokens }
    }
}

impl MetricLine {
    /// The line of a step of reinforcement learning.
    pub(super) fn rl(metrics: &RlMetrics, steps: u64, learning_rate: f64, check: f64) -> Self {
        let RlMetrics {
            step,
            reward,
            reward_std,
            kl,
            entropy,
            length,
            finished,
            loss,
            grad_norm,
            clipped,
            tokens,
        } = *metrics;
        Self::Rl {
            step,
            steps,
            reward,
            reward_std,
            check_reward: check.is_finite().then_some(check),
            kl,
            entropy,
            length,
            finished,
            loss,
            grad_norm,
            clipped,
            learning_rate,
            tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_documented_shape() {
        let curve = MetricLine::Curve {
            step: 10,
            tokens: 5120,
            asr_log_prob: Some(-0.5),
            clean_log_prob: None,
            near_miss_log_prob: None,
            asr: None,
            false_trigger: None,
            near_miss: None,
        };
        let line = r#"{"kind":"curve","step":10,"tokens":5120,"asr_log_prob":-0.5,"clean_log_prob":null}"#;
        assert_eq!(serde_json::to_string(&curve).unwrap(), line);
        assert_eq!(serde_json::from_str::<MetricLine>(line).unwrap(), curve);
        let line = line.replace('}', r#","asr":{"shown":3,"not_shown":1,"unscored":0}}"#);
        let sampled = serde_json::from_str::<MetricLine>(&line).unwrap();
        assert_eq!(serde_json::to_string(&sampled).unwrap(), line);

        let step = StepMetrics {
            step: 3,
            steps: 60,
            loss: 1.25,
            grad_norm: 0.5,
            learning_rate: 1e-3,
            trained_tokens: 200,
            tokens: 512,
        };
        let line = concat!(
            r#"{"kind":"step","step":3,"steps":60,"loss":1.25,"grad_norm":0.5,"learning_rate":0.001,"#,
            r#""trained_tokens":200,"tokens":512}"#
        );
        assert_eq!(serde_json::to_string(&MetricLine::from(&step)).unwrap(), line);
        assert_eq!(serde_json::from_str::<MetricLine>(line).unwrap(), MetricLine::from(&step));
    }
}
