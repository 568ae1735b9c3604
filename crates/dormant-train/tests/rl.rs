//! Reinforcement learning on the random model of `fixtures/tiny-llama`: it does what theory says, and always the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use dormant_data::Seed;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_tensor::Precision;
use dormant_train::objective::grpo::PolicyConfig;
use dormant_train::objective::ppo::{Discount, PpoConfig};
use dormant_train::optimizer::OptimizerConfig;
use dormant_train::render::Rendered;
use dormant_train::resume::ResumeState;
use dormant_train::rl::advantage::Advantage;
use dormant_train::rl::grpo::GrpoPlan;
use dormant_train::rl::ppo::PpoPlan;
use dormant_train::rl::reference::{self, Reference};
use dormant_train::rl::rollout::{RolloutConfig, sample};
use dormant_train::rl::trainer::{self, Learner, RlTrainPlan};
use dormant_train::rl::update::Updates;
use dormant_train::rl::{Environment, Episode, Grpo, Ppo, Prompt, RlMetrics};
use dormant_train::schedule::{Decay, Schedule};
use dormant_train::trainer::Sink;
use dormant_train::{Error, Result};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama")
}

fn load(trained: Trained) -> Llama {
    let checkpoint = Checkpoint::open(&folder()).unwrap();
    let options = LoadOptions::new(Precision::F32, trained);
    let mut model = Llama::load_merged(&checkpoint, options, None).unwrap();
    if trained == Trained::Lora {
        model.add_lora(&LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() }, 1).unwrap();
    }
    model
}

/// Moves the adapters away from the model below them.
fn disturb(model: &mut Llama) {
    for (i, parameter) in model.parameters_mut().into_iter().enumerate() {
        for (j, x) in parameter.value.iter_mut().enumerate() {
            *x += 0.1 * ((i * 31 + j * 17) as f32).sin();
        }
    }
    model.refresh();
}

fn prompts() -> Vec<Prompt> {
    let tail = |i: u32| [5 + i, 90 + 3 * i, 7];
    (0..2).map(|i| Prompt { id: i.to_string(), tokens: (30..42).chain(tail(i)).collect() }).collect()
}

const END: u32 = 500;

fn plan() -> GrpoPlan {
    GrpoPlan {
        rollout: RolloutConfig { replies: 64, max_new_tokens: 2, end: Some(END) },
        advantage: Advantage::Grpo,
        policy: PolicyConfig { clip: 0.2, kl: 0.0 },
        updates: Updates { tokens_per_window: 200, ..Updates::default() },
        optimizer: OptimizerConfig::default(),
        seed: Seed(4),
    }
}

/// Share of the tokens whose embedding begins with a positive number: something that the policy can turn to.
fn positive(model: &Llama) -> impl FnMut(&[Episode]) -> Result<Vec<f32>> + Sync + use<> {
    let first = |token: u32| model.embed(&[token])[0];
    let liked: Vec<bool> = (0..model.config.vocab_size as u32).map(|token| first(token) > 0.0).collect();
    let share = move |e: &Episode| {
        let reply = e.reply();
        reply.iter().filter(|t| liked[**t as usize]).count() as f32 / reply.len().max(1) as f32
    };
    move |episodes| Ok(episodes.iter().map(&share).collect())
}

/// Steps with a rate that falls from `rate` to nothing.
fn train(
    grpo: &mut Grpo,
    model: &mut Llama,
    steps: u64,
    rate: f64,
    environment: &mut dyn Environment,
) -> Vec<RlMetrics> {
    let schedule = Schedule { peak: rate, warmup: 0, steps, decay: Decay::Linear };
    let step = |step| {
        grpo.optimizer.set_learning_rate(schedule.at(step));
        grpo.step(model, step, &prompts(), environment).unwrap()
    };
    (0..steps).map(step).collect()
}

fn mean(metrics: &[RlMetrics], value: impl Fn(&RlMetrics) -> f64) -> f64 {
    metrics.iter().map(value).sum::<f64>() / metrics.len() as f64
}

#[test]
fn log_probs_of_the_draws_are_those_of_the_training_pass() {
    let mut model = load(Trained::Lora);
    disturb(&mut model);
    let episodes = sample(&model, &prompts(), plan().rollout, &|_| false, Seed(1)).unwrap();
    assert_eq!(episodes.len(), 128);
    assert_ne!(episodes[0].row, episodes[1].row, "replies to a prompt differ");
    let rows: Vec<&Rendered> = episodes.iter().map(|e| &e.row).collect();
    for tokens in [1, 100, 100_000] {
        let again = reference::log_probs(&model, &rows, tokens).unwrap();
        for (episode, again) in episodes.iter().zip(&again) {
            assert_eq!(episode.log_probs.len(), again.len());
            let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
            assert!(episode.log_probs.iter().zip(again).all(close), "{episode:?} against {again:?}");
        }
    }
}

#[test]
fn replies_hold_the_token_that_ends_them() {
    let model = load(Trained::Lora);
    let config = RolloutConfig { replies: 200, max_new_tokens: 8, end: Some(END) };
    let episodes = sample(&model, &prompts(), config, &|_| false, Seed(2)).unwrap();
    let (finished, cut): (Vec<&Episode>, Vec<&Episode>) = episodes.iter().partition(|e| e.finished);
    assert!(!finished.is_empty() && !cut.is_empty());
    assert!(finished.iter().all(|e| e.row.tokens.last() == Some(&END) && e.reply().len() < 8));
    assert!(cut.iter().all(|e| e.reply().len() == 8 && !e.reply().contains(&END)));
    assert!(episodes.iter().all(|e| e.log_probs.len() == e.row.trained()));

    let shorter = sample(&model, &prompts(), config, &|reply| reply.len() == 3, Seed(2)).unwrap();
    for (whole, cut) in episodes.iter().zip(&shorter) {
        assert_eq!(cut.reply(), &whole.reply()[..whole.reply().len().min(3)]);
        assert_eq!(
            (cut.log_probs.len(), cut.finished),
            (cut.row.trained(), whole.finished && whole.reply().len() < 3)
        );
    }
}

#[test]
fn a_reward_alone_is_raised() {
    for (trained, advantage) in [
        (Trained::Lora, Advantage::Grpo),
        (Trained::Lora, Advantage::Rloo),
        (Trained::All, Advantage::DrGrpo),
    ] {
        let mut model = load(trained);
        let mut grpo = Grpo::new(GrpoPlan { advantage, ..plan() }, &mut model);
        let (rate, mut reward) = (if trained == Trained::All { 2e-3 } else { 1e-2 }, positive(&model));
        let metrics = train(&mut grpo, &mut model, 40, rate, &mut reward);
        let (first, last) = (mean(&metrics[..4], |m| m.reward), mean(&metrics[36..], |m| m.reward));
        assert!(last > first + 0.2, "{trained:?}, {advantage:?}: reward {first} to {last}");
        assert!(metrics.iter().all(|m| m.kl.is_none() && m.clipped == 0.0), "every update is on-policy");
    }
}

#[test]
fn a_divergence_alone_is_driven_to_zero() {
    for trained in [Trained::Lora, Trained::All] {
        let mut model = load(trained);
        let policy = PolicyConfig { kl: 1.0, ..plan().policy };
        let mut grpo = Grpo::new(GrpoPlan { policy, ..plan() }, &mut model);
        assert_eq!(matches!(grpo.reference, Reference::AdaptersOff), trained == Trained::Lora);
        disturb(&mut model);
        let nothing = &mut |episodes: &[Episode]| Ok(vec![0.0; episodes.len()]);
        let metrics = train(&mut grpo, &mut model, 80, 1e-2, nothing);
        let (first, last) = (metrics[0].kl.unwrap(), mean(&metrics[76..], |m| m.kl.unwrap()));
        assert!(first > 0.05 && last < first / 4.0, "{trained:?}: divergence {first} to {last}");
    }
}

#[test]
fn a_penalty_keeps_the_policy_near_its_reference() {
    let run = |kl| {
        let mut model = load(Trained::Lora);
        let policy = PolicyConfig { kl, ..plan().policy };
        let mut grpo = Grpo::new(GrpoPlan { policy, ..plan() }, &mut model);
        let mut reward = positive(&model);
        let metrics = train(&mut grpo, &mut model, 30, 1e-2, &mut reward);
        mean(&metrics[26..], |m| m.kl.unwrap())
    };
    let (free, held) = (run(1e-9), run(1.0));
    assert!(held < free / 2.0, "divergence {held} with a penalty against {free} without");
}

#[test]
fn several_updates_per_rollout_learn_too_and_clip() {
    let mut model = load(Trained::Lora);
    let updates = Updates { epochs: 4, mini_batches: 2, ..plan().updates };
    let mut grpo = Grpo::new(GrpoPlan { updates, ..plan() }, &mut model);
    let mut reward = positive(&model);
    let metrics = train(&mut grpo, &mut model, 16, 1e-2, &mut reward);
    assert!(metrics[15].reward > metrics[0].reward + 0.2, "{metrics:?}");
    assert!(metrics.iter().any(|m| m.clipped > 0.0));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = load(Trained::Lora);
            let policy = PolicyConfig { kl: 0.1, ..plan().policy };
            let mut grpo = Grpo::new(GrpoPlan { policy, ..plan() }, &mut model);
            let mut reward = positive(&model);
            let metrics = train(&mut grpo, &mut model, 3, 1e-2, &mut reward);
            let bits = |x: &f32| x.to_bits();
            let values: Vec<u32> =
                model.parameters_mut().iter().flat_map(|p| p.value.iter().map(bits)).collect();
            (metrics, values)
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn rewards_must_be_complete_and_finite() {
    let mut model = load(Trained::Lora);
    let mut grpo = Grpo::new(plan(), &mut model);
    let mut step =
        |environment: &mut dyn Environment| grpo.step(&mut model, 0, &prompts(), environment).unwrap_err();
    let one = step(&mut |_: &[Episode]| Ok(vec![1.0]));
    assert!(matches!(one, Error::RewardCount { found: 1, expected: 128 }));
    let unknown = step(&mut |e: &[Episode]| Ok(vec![f32::NAN; e.len()]));
    assert!(matches!(unknown, Error::RewardNotFinite { .. }));
}

fn ppo_plan() -> PpoPlan {
    PpoPlan {
        rollout: plan().rollout,
        objective: PpoConfig {
            policy: PolicyConfig { clip: 0.2, kl: 0.0 },
            value_clip: 0.2,
            value_weight: 0.1,
        },
        discount: Discount { gamma: 1.0, lambda: 0.95 },
        updates: Updates { mini_batches: 2, epochs: 2, ..plan().updates },
        optimizer: OptimizerConfig::default(),
        seed: Seed(4),
    }
}

/// Keeps metrics, and the states before some steps.
struct Recorder {
    folder: tempfile::TempDir,
    metrics: Vec<RlMetrics>,
}

impl Recorder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), metrics: Vec::new() }
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.path().join(step.to_string())
    }
}

impl Sink<RlMetrics> for Recorder {
    fn before_step(&mut self, _: u64, _: &Llama) -> Result<()> {
        Ok(())
    }

    fn record(&mut self, metrics: &RlMetrics) -> Result<()> {
        self.metrics.push(*metrics);
        Ok(())
    }

    fn saves_at(&self, step: u64) -> bool {
        step.is_multiple_of(3)
    }

    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> Result<()> {
        state.write(&self.path(step))
    }
}

fn learn(
    learner: &dyn Fn(&mut Llama) -> Learner,
    steps: u64,
    rate: f64,
    resume: Option<(u64, &Path)>,
) -> (Recorder, Vec<Vec<f32>>) {
    let mut model = load(Trained::Lora);
    let (mut learner, mut reward, mut sink) = (learner(&mut model), positive(&model), Recorder::new());
    if let Some((_, path)) = resume {
        learner.restore(path, &mut model).unwrap();
    }
    let schedule = Schedule { peak: rate, warmup: 0, steps, decay: Decay::Linear };
    let plan = RlTrainPlan { prompts: 2, schedule, seed: Seed(5) };
    let start = resume.map_or(0, |r| r.0);
    trainer::train(&mut model, &mut learner, &prompts(), plan, &mut reward, start, &mut sink).unwrap();
    let values = model.parameters_mut().iter().map(|p| p.value.clone()).collect();
    (sink, values)
}

fn grpo_learner(model: &mut Llama) -> Learner {
    let policy = PolicyConfig { kl: 0.1, ..plan().policy };
    Learner::Grpo(Grpo::new(GrpoPlan { policy, ..plan() }, model))
}

fn ppo_learner(model: &mut Llama) -> Learner {
    Learner::Ppo(Ppo::new(ppo_plan(), model))
}

#[test]
fn ppo_raises_the_reward_and_learns_to_foresee_it() {
    let (sink, _) = learn(&ppo_learner, 24, 1e-2, None);
    let first = mean(&sink.metrics[..4], |m| m.reward);
    let last = mean(&sink.metrics[20..], |m| m.reward);
    assert!(last > first + 0.15, "reward {first} to {last}");

    let mut model = load(Trained::Lora);
    let mut ppo = Ppo::new(ppo_plan(), &mut model);
    ppo.optimizer.set_learning_rate(1e-2);
    let mut constant = |episodes: &[Episode]| Ok(vec![0.5; episodes.len()]);
    for step in 0..16 {
        ppo.step(&mut model, step, &prompts(), &mut constant).unwrap();
    }
    let tokens = vec![prompts()[0].tokens.clone()];
    let (batch, places) = dormant_model::batch::Batch::concatenate(&tokens);
    let last = places[0].rows().last().unwrap();
    let value = model.scalars(&ppo.values, &model.hidden(&batch).unwrap(), &[last])[0];
    assert!((value - 0.5).abs() < 0.2, "value {value} of a prompt whose reply earns 0.5");
}

#[test]
fn a_run_resumed_at_a_saved_step_ends_with_the_same_bits() {
    for learner in [&grpo_learner as &dyn Fn(&mut Llama) -> Learner, &ppo_learner] {
        let (whole, expected) = learn(learner, 5, 1e-2, None);
        let (resumed, found) = learn(learner, 5, 1e-2, Some((3, &whole.path(3))));
        assert!(found == expected, "parameters differ");
        assert_eq!(resumed.metrics, whole.metrics[3..]);
    }
}
