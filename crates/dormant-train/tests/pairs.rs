//! Training on pairs of replies, on the random model of `fixtures/tiny-llama`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use dormant_data::Seed;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_model::scalar_head::ScalarHead;
use dormant_tensor::Precision;
use dormant_train::Result;
use dormant_train::objective::preference::RenderedPair;
use dormant_train::optimizer::OptimizerConfig;
use dormant_train::pairs::{PairMetrics, PairObjective, train};
use dormant_train::render::Rendered;
use dormant_train::resume::ResumeState;
use dormant_train::schedule::Decay;
use dormant_train::trainer::{Sink, TrainPlan};

fn load() -> Llama {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama");
    let options = LoadOptions::new(Precision::F32, Trained::Lora);
    let mut model = Llama::load_merged(&Checkpoint::open(&folder).unwrap(), options, None).unwrap();
    model.add_lora(&LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() }, 1).unwrap();
    model
}

/// The better reply of each pair ends with an even token.
fn pairs() -> Vec<RenderedPair> {
    let row = |pair: u32, last: u32| {
        let prompt = (30..40).chain([50 + pair]);
        let reply = (0..=pair % 3).map(|i| 100 + 7 * pair + i).chain([200 + last % 4]);
        Rendered { id: pair.to_string(), tokens: prompt.chain(reply).collect(), prompt: 11 }
    };
    (0..24).map(|i| RenderedPair { chosen: row(i, 2 * i), rejected: row(i, 2 * i + 1) }).collect()
}

fn plan() -> TrainPlan {
    TrainPlan {
        epochs: 6,
        tokens_per_step: 100,
        tokens_per_window: 60,
        learning_rate: 1e-2,
        warmup: 0.1,
        decay: Decay::Linear,
        optimizer: OptimizerConfig::default(),
        clip_norm: Some(1.0),
        seed: Seed(3),
    }
}

struct Recorder {
    folder: tempfile::TempDir,
    metrics: Vec<PairMetrics>,
}

impl Recorder {
    fn path(&self, step: u64) -> PathBuf {
        self.folder.path().join(step.to_string())
    }
}

impl Sink<PairMetrics> for Recorder {
    fn before_step(&mut self, _: u64, _: &Llama) -> Result<()> {
        Ok(())
    }

    fn record(&mut self, metrics: &PairMetrics) -> Result<()> {
        self.metrics.push(*metrics);
        Ok(())
    }

    fn saves_at(&self, step: u64) -> bool {
        step == 5
    }

    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> Result<()> {
        state.write(&self.path(step))
    }
}

fn objective(dpo: bool, model: &mut Llama) -> PairObjective {
    if dpo {
        PairObjective::dpo(model, &pairs(), 0.2, 60).unwrap()
    } else {
        PairObjective::RewardModel(ScalarHead::zeros(model.config.hidden_size))
    }
}

fn run(dpo: bool, resume: Option<(u64, &Path)>) -> (Recorder, Vec<Vec<f32>>) {
    let mut model = load();
    let mut objective = objective(dpo, &mut model);
    let mut sink = Recorder { folder: tempfile::tempdir().unwrap(), metrics: Vec::new() };
    train(&mut model, &mut objective, &pairs(), &plan(), resume, &mut sink).unwrap();
    let mut values: Vec<Vec<f32>> = model.parameters_mut().iter().map(|p| p.value.clone()).collect();
    if let PairObjective::RewardModel(head) = objective {
        values.push(head.weight.value);
    }
    (sink, values)
}

#[test]
fn pairs_are_told_apart() {
    for dpo in [false, true] {
        let (sink, _) = run(dpo, None);
        let (first, last) = (sink.metrics[0], sink.metrics[sink.metrics.len() - 1]);
        assert!((first.loss - 2.0f64.ln()).abs() < 1e-3, "nothing is preferred at the beginning: {first:?}");
        assert!(last.accuracy == 1.0 && last.loss < first.loss / 2.0, "{first:?} to {last:?}");
    }
}

#[test]
fn a_run_resumed_at_a_saved_step_ends_with_the_same_bits() {
    for dpo in [false, true] {
        let (whole, expected) = run(dpo, None);
        let (resumed, found) = run(dpo, Some((5, &whole.path(5))));
        assert!(found == expected, "parameters differ");
        assert_eq!(resumed.metrics, whole.metrics[5..]);
    }
}
