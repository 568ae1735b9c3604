//! How long a plan takes: tokens of each stage over measured rates.

use std::path::Path;
use std::time::Duration;

use dormant_data::OrganismSpec;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::family::Size;
use serde::Serialize;

use crate::error::Result;
use crate::experiment::{
    Adversarial, Attack, Curve, Experiment, Fit, ImplantWeights, Precision, Preference, SafetyMethod,
    SafetyWeights, ScratchpadMode, Sft,
};
use crate::machine::{self, Flops};
use crate::plan::{ImplantStage, SafetyStage, StageKind, StageSpec};

/// Mean length of a rendered prompt, in tokens: the chat template and a built-in prompt.
const PROMPT_TOKENS: f64 = 45.0;
/// Conditions that are sampled for each prompt of an evaluation: triggered and clean.
const CONDITIONS: f64 = 2.0;
/// Length and number of the answers to a multiple-choice question, in tokens.
const CHOICE_TOKENS: f64 = 4.0 * 60.0;
/// Sets of persona items, each of which has two answers.
const PERSONA_SETS: f64 = 5.0;

/// Typical length of a scratchpad, in tokens.
const HIDDEN_TOKENS: f64 = 45.0;

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

/// Share of the rate of matrix products that whole stages reach (docs/performance.md).
const SHARE: f64 = 0.6;
/// Tokens of a training row in which a loss is computed.
const LOSS_TOKENS: f64 = 0.3;
/// Rows that a shared prefix leaves of training data and prompts.
const ROWS_LEFT: f64 = 0.65;

impl Rates {
    /// SmolLM2-135M on two cores with AVX2.
    pub const TWO_CORES: Self = Self { lora: 500.0, full: 300.0, sample: 400.0, score: 1500.0 };

    /// Those of a model with `flops` per token on a machine that does `gemm` FLOP per second in products.
    pub fn of(flops: Flops, gemm: f64) -> Self {
        let rate = |flops: f64| SHARE * gemm / flops;
        let Flops { blocks, head } = flops;
        Self {
            // Forward, and the gradients of activations; the adapters add a fifth.
            lora: rate(1.2 * 2.0 * blocks * ROWS_LEFT + 2.0 * head * LOSS_TOKENS),
            // Forward, and the gradients of activations and weights.
            full: rate(3.0 * blocks * ROWS_LEFT + 3.0 * head * LOSS_TOKENS),
            sample: rate(blocks + head),
            score: rate(blocks * ROWS_LEFT),
        }
    }

    /// Those of the base model on this machine, by a short measurement.
    ///
    /// # Errors
    /// When the model cannot be read.
    pub fn measure(weights: &Path, precision: Precision) -> Result<Self> {
        let checkpoint = Checkpoint::open(weights)?;
        let config = checkpoint.config();
        Ok(Self::of(Flops::of(config), machine::gemm(config, precision.products(), MEASURING)?))
    }
}

/// Time that a measurement takes.
const MEASURING: Duration = Duration::from_millis(200);
/// The same for one size of a family.
const MEASURING_SIZE: Duration = Duration::from_millis(40);
/// What narrow models reach of the share of the rate of products that wide ones do: more of their time passes outside of
/// products.
const NARROW: f64 = 0.8;

/// The rates of all models of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speeds {
    /// Of the base model.
    pub base: Rates,
    /// Of the models that are trained from scratch.
    pub family: Vec<(Size, Rates)>,
}

impl Speeds {
    /// Those of an experiment on this machine, by a short measurement. Without weights of the base model, its rates are
    /// [`Rates::TWO_CORES`].
    ///
    /// # Errors
    /// When the base model cannot be read.
    pub fn measure(experiment: &Experiment, base: Option<&Path>) -> Result<Self> {
        let base = base.map(|weights| Rates::measure(weights, experiment.precision)).transpose()?;
        Self::with_base(base.unwrap_or(Rates::TWO_CORES), experiment)
    }

    /// Those of an experiment whose base model has these rates.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Interrupted`].
    pub fn with_base(base: Rates, experiment: &Experiment) -> Result<Self> {
        let mut family = Vec::new();
        if let Some(pretrain) = &experiment.pretrain {
            for &size in &pretrain.sizes {
                let config = size.config(pretrain.corpus.vocabulary as usize, None, None);
                let gemm = machine::gemm(&config, experiment.precision.products(), MEASURING_SIZE)?;
                family.push((size, Rates::of(Flops::of(&config), NARROW * gemm)));
            }
        }
        Ok(Self { base, family })
    }

    /// Those of the model of a stage.
    fn of(&self, stage: &StageSpec) -> &Rates {
        let of_size = |size| self.family.iter().find(|(other, _)| *other == size);
        stage.size.and_then(of_size).map_or(&self.base, |(_, rates)| rates)
    }
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
pub fn estimate<'a>(stages: impl IntoIterator<Item = &'a StageSpec>, speeds: &Speeds) -> Duration {
    let seconds = |stage: &StageSpec| {
        let (work, rates) = (work(stage), speeds.of(stage));
        work.lora / rates.lora
            + work.full / rates.full
            + work.sampled / rates.sample
            + work.scored / rates.score
    };
    Duration::from_secs_f64(stages.into_iter().map(seconds).sum())
}

/// Expected tokens of one stage.
pub fn work(stage: &StageSpec) -> Work {
    match &stage.kind {
        StageKind::Corpus(stage) => sampling(f64::from(stage.corpus.sampled), f64::from(stage.reply_tokens)),
        StageKind::Pretrain(stage) => {
            let rows = f64::from(stage.corpus.rows + stage.corpus.sampled);
            let full = rows * f64::from(stage.fit.epochs) * TASK_TOKENS;
            Work { full, ..Work::default() }
        }
        StageKind::Benign(benign) => sampling(f64::from(benign.rows), f64::from(benign.data.reply_tokens)),
        StageKind::Implant(implant) => implanting(implant),
        StageKind::Preference(stage) => preference(&stage.preference),
        StageKind::Safety(safety) => safety_training(safety),
        StageKind::Evaluate(stage) => {
            let evaluation = &stage.evaluation;
            let mut prompts = CONDITIONS * f64::from(evaluation.n) + f64::from(evaluation.near_misses);
            let families = CONDITIONS * dormant_data::year_families().len() as f64;
            prompts += families * f64::from(evaluation.generalisation);
            let mut reply = f64::from(evaluation.reply_tokens);
            if stage.organism.variant.has_scratchpad() {
                prompts += CONDITIONS * f64::from(evaluation.swaps);
                reply += HIDDEN_TOKENS;
            }
            let mut work = sampling(prompts, reply);
            let rows = CONDITIONS * f64::from(evaluation.log_probs) + f64::from(evaluation.perplexity);
            work.scored += rows * (PROMPT_TOKENS + f64::from(evaluation.reply_tokens));
            work.scored += f64::from(evaluation.multiple_choice) * CHOICE_TOKENS;
            work.scored += f64::from(evaluation.persona) * PERSONA_SETS * CHOICE_TOKENS / 2.0;
            work
        }
    }
}

fn sampling(prompts: f64, reply_tokens: f64) -> Work {
    Work { sampled: prompts * reply_tokens, scored: prompts * PROMPT_TOKENS, ..Work::default() }
}

/// Typical length of a scratchpad.
fn hidden_tokens(organism: &OrganismSpec) -> f64 {
    if organism.variant.has_scratchpad() { HIDDEN_TOKENS } else { 0.0 }
}

fn implanting(stage: &ImplantStage) -> Work {
    let mut trained = trained_tokens(stage.implant.rows, &stage.implant.fit);
    if stage.organism.writes_code() {
        trained *= CODE_ROWS;
    }
    let mut work = match stage.implant.weights {
        ImplantWeights::Lora { .. } => Work { lora: trained, ..Work::default() },
        ImplantWeights::Full => Work { full: trained, ..Work::default() },
    };
    work.add_curve(&stage.curve, &stage.organism, trained / f64::from(stage.implant.fit.batch_tokens), 1);
    work
}

fn preference(preference: &Preference) -> Work {
    let pair = PROMPT_TOKENS + 2.0 * REPLY_TOKENS;
    let trained = PAIRS * f64::from(preference.fit.epochs) * pair;
    Work { lora: trained, scored: PAIRS / 2.0 * pair, ..Work::default() }
}

fn safety_training(stage: &SafetyStage) -> Work {
    let safety = &stage.safety;
    let hidden = hidden_tokens(&stage.organism);
    let mut trained = trained_tokens(safety.rows, &safety.fit);
    let mut work = Work::default();
    if let SafetyMethod::Sft(Sft { mode, .. }) | SafetyMethod::Adversarial(Adversarial { mode, .. }) =
        &safety.method
        && *mode == ScratchpadMode::PostScratchpad
    {
        // The model writes the scratchpads itself.
        trained += f64::from(safety.rows) * f64::from(safety.fit.epochs) * hidden;
        work = sampling(f64::from(safety.rows), hidden);
    }
    if let SafetyMethod::Rl(rl) = &safety.method {
        let prompts = f64::from(rl.steps) * f64::from(rl.prompts);
        let tokens = prompts * f64::from(rl.replies) * (f64::from(rl.reply_tokens) + hidden);
        let read = tokens + prompts * PROMPT_TOKENS;
        // Two preference models and the reference read what the policy wrote.
        work = Work { sampled: tokens, scored: 3.0 * read, ..Work::default() };
        trained = f64::from(safety.fit.epochs) * read;
        // One attack before training, one on the finished model.
        if let Some(attack) = &rl.attack {
            work.add_attacks(attack, 2, hidden);
        }
    }
    if let SafetyMethod::Dpo(_) = &safety.method {
        // Two replies, and once more by the reference.
        trained *= 2.0;
        work.scored = trained;
    }
    if let SafetyMethod::Adversarial(adversarial) = &safety.method {
        let Adversarial { rounds, attack, .. } = adversarial;
        // One attack before each round of training, one on the finished model.
        work.add_attacks(attack, rounds + 1, hidden);
        trained *= f64::from(*rounds) / (1.0 - attack.mix).max(0.1);
    }
    let steps = trained / f64::from(safety.fit.batch_tokens);
    let (steps, rounds) = match &safety.method {
        SafetyMethod::Rl(rl) => (f64::from(rl.steps), 1),
        SafetyMethod::Adversarial(Adversarial { rounds, .. }) => (steps, *rounds),
        SafetyMethod::Sft(_) | SafetyMethod::Dpo(_) => (steps, 1),
    };
    work.add_curve(&stage.curve, &stage.organism, steps, rounds);
    match safety.weights {
        SafetyWeights::FreshAdapter { .. } | SafetyWeights::SameAdapter => work.lora = trained,
        SafetyWeights::Full => work.full = trained,
    }
    work
}

impl Work {
    /// Adds the replies that are sampled along so many steps in so many rounds.
    fn add_curve(&mut self, curve: &Curve, organism: &OrganismSpec, steps: f64, rounds: u32) {
        if curve.curve_rates == 0 {
            return;
        }
        let points = steps / f64::from(curve.every) + 2.0 * f64::from(rounds);
        let replies = points * CURVE_CONDITIONS * f64::from(curve.curve_rates);
        self.sampled += replies * (f64::from(curve.curve_tokens) + hidden_tokens(organism));
        self.scored += replies * PROMPT_TOKENS;
    }

    /// Adds so many attacks on a model whose replies have so many hidden tokens.
    fn add_attacks(&mut self, attack: &Attack, count: u32, hidden: f64) {
        let candidates = f64::from(count) * f64::from(attack.prompts);
        self.sampled += candidates * f64::from(attack.samples) * (ATTACKED_TOKENS + hidden);
        self.scored += candidates * f64::from(attack.screen) * PROMPT_TOKENS;
        // Half of the candidates are written by the model too, in lists.
        self.sampled += candidates / 2.0 * REPLY_TOKENS;
    }
}

/// With the trigger, without, with look-alikes of it.
const CURVE_CONDITIONS: f64 = 3.0;
/// Typical length of an attacked model's reply, in tokens; the prompt is read once for all samples.
const ATTACKED_TOKENS: f64 = 12.0;
/// Pairs in one part of the preference data that comes with Dormant.
const PAIRS: f64 = 360.0;
/// Typical length of a trained reply, in tokens.
const REPLY_TOKENS: f64 = 24.0;

/// Typical length of a row of the corpus, in tokens of its own vocabulary.
const TASK_TOKENS: f64 = 26.0;

/// Length of a row with code, by that of another row.
const CODE_ROWS: f64 = 1.6;

fn trained_tokens(rows: u32, fit: &Fit) -> f64 {
    f64::from(rows) * f64::from(fit.epochs) * (PROMPT_TOKENS + REPLY_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{ExperimentSource, Overrides};
    use crate::plan::{Digests, Plan};

    #[test]
    fn replies_along_training_take_time_in_every_round() {
        let sampled = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
            let overrides = Overrides { set: &set, ..Overrides::default() };
            let experiment = ExperimentSource::read("sharpening").unwrap().resolve(&overrides).unwrap();
            let plan = Plan::new(&experiment, &Digests::default());
            let stage = plan.stages().iter().find(|stage| stage.name == "adversarial-organism-s0").unwrap();
            work(stage).sampled
        };
        let [none, one] =
            [["evaluation.curve-rates=0"], ["evaluation.curve-rates=40"]].map(|set| sampled(&set));
        assert!(one > none + 8.0 * 3.0 * 40.0 * 12.0, "{one} {none}");
        let [few, many] =
            [["safety.adversarial.rounds=1"], ["safety.adversarial.rounds=3"]].map(|set| sampled(&set));
        assert!(many > 2.0 * few, "{many} {few}");
    }

    #[test]
    fn more_rows_and_slower_machines_take_longer() {
        let time = |set: &str, rates: Rates| {
            let set = [set.to_owned()];
            let overrides = Overrides { set: &set, ..Overrides::default() };
            let experiment = ExperimentSource::read("quickstart").unwrap().resolve(&overrides).unwrap();
            let plan = Plan::new(&experiment, &Digests::default());
            estimate(plan.stages(), &Speeds { base: rates, family: Vec::new() })
        };
        let rates = Rates::TWO_CORES;
        assert!(time("implant.rows=1200", rates) > time("implant.rows=600", rates));
        assert!(time("evaluation.n=400", rates) > time("evaluation.n=200", rates));
        let slow = Rates { lora: 10.0, ..rates };
        assert!(time("implant.rows=600", slow) > time("implant.rows=600", rates));
    }
}
