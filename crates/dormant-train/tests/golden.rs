//! Ten training steps against PyTorch's (see `fixtures/golden/README.md`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::checkpoint::safetensors::SafetensorsFile;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_tensor::Precision;
use dormant_train::objective::sft;
use dormant_train::optimizer::{AdamW, AdamWConfig};
use dormant_train::render::Rendered;
use dormant_train::resume::{ResumeState, restore};
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn integers(name: &str) -> Vec<i64> {
    let bytes = std::fs::read(fixture("golden/tiny.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The golden rows: the loss covers the end of each, and the token after the last is known from its target.
fn rows() -> Vec<Rendered> {
    let row = |i: usize| {
        let (tokens, targets) = (integers(&format!("tokens.{i}")), integers(&format!("targets.{i}")));
        let prompt = targets.iter().position(|t| *t >= 0).unwrap() + 1;
        let last = targets.iter().rposition(|t| *t >= 0).unwrap();
        let mut tokens: Vec<u32> = tokens[..=last].iter().map(|t| *t as u32).collect();
        tokens.push(targets[last] as u32);
        Rendered { id: i.to_string(), tokens, prompt }
    };
    (0..3).map(row).collect()
}

fn load(trained: Trained) -> Llama {
    let checkpoint = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    let options = LoadOptions { precision: Precision::F32, trained };
    let mut model = Llama::load_merged(&checkpoint, options, None).unwrap();
    if trained == Trained::Lora {
        model.add_adapter(&Adapter::read(&fixture("tiny-adapter")).unwrap()).unwrap();
    }
    model
}

/// Loss before the step, as the trainer does it.
fn step(model: &mut Llama, optimizer: &mut AdamW, rate: f64) -> f64 {
    let rows = rows();
    let loss = sft::loss(model, &rows.iter().collect::<Vec<_>>()).unwrap();
    model.scale_and_clip(1.0 / loss.tokens as f32, Some(1.0));
    optimizer.set_learning_rate(rate);
    optimizer.step(&mut model.parameters_mut());
    model.refresh();
    loss.mean()
}

fn tracks(trained: Trained, rate: f64, weight_decay: f32, golden: &str) {
    let mut model = load(trained);
    let config = AdamWConfig { weight_decay, ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(config, &model.parameters_mut());
    let file = SafetensorsFile::open(&fixture("golden/tiny.safetensors")).unwrap();
    for (number, expected) in file.tensor_f32(golden).unwrap().into_iter().enumerate() {
        let loss = step(&mut model, &mut optimizer, rate);
        assert!((loss - f64::from(expected)).abs() < 1e-3, "step {number}: {loss} against {expected}");
    }
}

#[test]
fn ten_full_steps_track_pytorch() {
    tracks(Trained::All, 1e-3, 0.01, "full.losses");
}

#[test]
fn ten_adapter_steps_track_pytorch() {
    tracks(Trained::Lora, 1e-2, 0.0, "lora.losses");
}

#[test]
fn a_restored_run_goes_on_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let config = AdamWConfig::default();
    let mut whole = load(Trained::Lora);
    let mut optimizer = AdamW::new(config, &whole.parameters_mut());
    step(&mut whole, &mut optimizer, 1e-2);
    ResumeState::of(&mut whole, &optimizer).write(&path).unwrap();
    let mut resumed = load(Trained::Lora);
    let mut resumed_optimizer = restore(&path, &mut resumed, config).unwrap();
    for _ in 0..3 {
        let expected = step(&mut whole, &mut optimizer, 1e-2);
        assert_eq!(step(&mut resumed, &mut resumed_optimizer, 1e-2).to_bits(), expected.to_bits());
    }
}
