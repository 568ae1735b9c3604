//! `metrics.jsonl` of a training stage.

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
    },
}

impl From<&StepMetrics> for MetricLine {
    fn from(metrics: &StepMetrics) -> Self {
        let StepMetrics { step, steps, loss, grad_norm, learning_rate, trained_tokens, tokens } = *metrics;
        Self::Step { step, steps, loss, grad_norm, learning_rate, trained_tokens, tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_documented_shape() {
        let curve =
            MetricLine::Curve { step: 10, tokens: 5120, asr_log_prob: Some(-0.5), clean_log_prob: None };
        let line = r#"{"kind":"curve","step":10,"tokens":5120,"asr_log_prob":-0.5,"clean_log_prob":null}"#;
        assert_eq!(serde_json::to_string(&curve).unwrap(), line);
        assert_eq!(serde_json::from_str::<MetricLine>(line).unwrap(), curve);

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
