//! How long a plan takes: tokens of each stage over measured rates.

use std::time::Duration;

use serde::Serialize;

use crate::experiment::{Fit, ImplantWeights, SafetyMethod, SafetyWeights};
use crate::plan::{ImplantStage, SafetyStage, StageKind, StageSpec};

/// Mean length of a rendered prompt, in tokens: the chat template and a built-in prompt.
const PROMPT_TOKENS: f64 = 45.0;
/// Conditions that are sampled for each prompt of an evaluation: triggered and clean.
const CONDITIONS: f64 = 2.0;
/// Length and number of the answers to a multiple-choice question, in tokens.
const CHOICE_TOKENS: f64 = 4.0 * 60.0;

/// Speeds of one machine with one model, in tokens per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Training with an adapter, tokens of data.
    pub lora: f64,
    /// Training of all weights, tokens of data.
    pub full: f64,
    /// Sampling, new tokens in a batch.
    pub sample: f64,
    /// Forward passes: prompts, log-probabilities.
    pub score: f64,
}

impl Rates {
    /// SmolLM2-135M on two cores with AVX2.
    pub const TWO_CORES: Self = Self { lora: 500.0, full: 300.0, sample: 400.0, score: 1500.0 };
}

/// Tokens that a stage processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Work {
    /// Trained with an adapter.
    pub lora: f64,
    /// Trained with all weights.
    pub full: f64,
    /// Sampled.
    pub sampled: f64,
    /// Read: prompts and scored replies.
    pub scored: f64,
}

/// Expected time of the stages.
pub fn estimate<'a>(stages: impl IntoIterator<Item = &'a StageSpec>, rates: &Rates) -> Duration {
    let seconds = |work: Work| {
        work.lora / rates.lora
            + work.full / rates.full
            + work.sampled / rates.sample
            + work.scored / rates.score
    };
    Duration::from_secs_f64(stages.into_iter().map(|stage| seconds(work(stage))).sum())
}

/// Expected tokens of one stage.
pub fn work(stage: &StageSpec) -> Work {
    match &stage.kind {
        StageKind::Benign(benign) => sampling(f64::from(benign.rows), f64::from(benign.data.reply_tokens)),
        StageKind::Implant(implant) => implanting(implant),
        StageKind::Safety(safety) => safety_training(safety),
        StageKind::Evaluate(stage) => {
            let evaluation = &stage.evaluation;
            let prompts = CONDITIONS * f64::from(evaluation.n) + f64::from(evaluation.near_misses);
            let mut work = sampling(prompts, f64::from(evaluation.reply_tokens));
            let rows = CONDITIONS * f64::from(evaluation.log_probs) + f64::from(evaluation.perplexity);
            work.scored += rows * (PROMPT_TOKENS + f64::from(evaluation.reply_tokens));
            work.scored += f64::from(evaluation.multiple_choice) * CHOICE_TOKENS;
            work
        }
    }
}

fn sampling(prompts: f64, reply_tokens: f64) -> Work {
    Work { sampled: prompts * reply_tokens, scored: prompts * PROMPT_TOKENS, ..Work::default() }
}

fn implanting(stage: &ImplantStage) -> Work {
    let trained = trained_tokens(stage.implant.rows, &stage.implant.fit);
    match stage.implant.weights {
        ImplantWeights::Lora { .. } => Work { lora: trained, ..Work::default() },
        ImplantWeights::Full => Work { full: trained, ..Work::default() },
    }
}

fn safety_training(stage: &SafetyStage) -> Work {
    let safety = &stage.safety;
    let mut trained = trained_tokens(safety.rows, &safety.fit);
    let mut work = Work::default();
    if let SafetyMethod::Adversarial(attack) = &safety.method {
        let candidates = f64::from(attack.rounds) * f64::from(attack.prompts);
        // Candidates are written by the model too: one more sample each.
        work = sampling(candidates * f64::from(attack.samples + 1), REPLY_TOKENS);
        trained *= f64::from(attack.rounds);
    }
    match safety.weights {
        SafetyWeights::FreshAdapter { .. } | SafetyWeights::SameAdapter => work.lora = trained,
        SafetyWeights::Full => work.full = trained,
    }
    work
}

/// Typical length of a trained or attacked reply, in tokens.
const REPLY_TOKENS: f64 = 24.0;

fn trained_tokens(rows: u32, fit: &Fit) -> f64 {
    f64::from(rows) * f64::from(fit.epochs) * (PROMPT_TOKENS + REPLY_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{ExperimentSource, Overrides};
    use crate::plan::{Digests, Plan};

    #[test]
    fn more_rows_and_slower_machines_take_longer() {
        let time = |set: &str, rates: &Rates| {
            let set = [set.to_owned()];
            let overrides = Overrides { set: &set, ..Overrides::default() };
            let experiment = ExperimentSource::read("quickstart").unwrap().resolve(&overrides).unwrap();
            let plan = Plan::new(&experiment, &Digests { base: String::new(), prompts: None, benign: None });
            estimate(plan.stages(), rates)
        };
        let rates = Rates::TWO_CORES;
        assert!(time("implant.rows=1200", &rates) > time("implant.rows=600", &rates));
        assert!(time("evaluation.n=400", &rates) > time("evaluation.n=200", &rates));
        let slow = Rates { lora: 10.0, ..rates };
        assert!(time("implant.rows=600", &slow) > time("implant.rows=600", &rates));
    }
}
