//! Ten training steps against PyTorch's (see `fixtures/golden/README.md`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_tensor::Precision;
use dormant_train::objective::sft;
use dormant_train::optimizer::{Optimizer, OptimizerConfig};
use dormant_train::render::Rendered;

use numbers::{Golden, default_model, fixture};

#[path = "../../dormant-model/tests/golden/numbers.rs"]
mod numbers;

/// The golden rows: the loss covers the end of each, and the token after the last is known from its target.
fn rows(golden: &Golden) -> Vec<Rendered> {
    let row = |(id, (tokens, targets)): (usize, (Vec<u32>, Vec<f64>))| {
        let prompt = targets.iter().position(|t| *t >= 0.0).unwrap() + 1;
        let last = targets.iter().rposition(|t| *t >= 0.0).unwrap();
        let mut tokens = tokens[..=last].to_vec();
        tokens.push(targets[last] as u32);
        Rendered { id: id.to_string(), tokens, prompt }
    };
    golden.rows().into_iter().enumerate().map(row).collect()
}

fn load(model: &Path, trained: Trained) -> Llama {
    let checkpoint = Checkpoint::open(model).unwrap();
    Llama::load_merged(&checkpoint, LoadOptions::new(Precision::F32, trained), None).unwrap()
}

/// A golden run: the same batch in each step, a constant rate, no warm-up.
struct Run {
    golden: Golden,
    model: Llama,
    rate: f64,
    weight_decay: f32,
}

impl Run {
    /// Compares the loss before each step, and the norm of its gradient, with the reference.
    fn tracks(mut self, name: &str) {
        let config = OptimizerConfig { weight_decay: self.weight_decay, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(config, &self.model.parameters_mut());
        optimizer.set_learning_rate(self.rate);
        let (rows, golden) = (rows(&self.golden), self.golden);
        let losses = golden.numbers(&format!("{name}.losses"));
        let norms = golden.numbers(&format!("{name}.grad_norms"));
        for (number, (expected, norm)) in losses.into_iter().zip(norms).enumerate() {
            let loss = sft::loss(&mut self.model, &rows.iter().collect::<Vec<_>>()).unwrap();
            let grad_norm = f64::from(self.model.scale_and_clip(1.0 / loss.tokens as f32, Some(1.0)));
            optimizer.step(&mut self.model.parameters_mut());
            self.model.refresh();
            let loss = loss.mean();
            assert!((loss - expected).abs() < 1e-3, "{name}, step {number}: loss {loss} against {expected}");
            let error = (grad_norm - norm).abs() / norm;
            assert!(error < 1e-2, "{name}, step {number}: gradient norm {grad_norm} against {norm}");
        }
    }
}

fn tiny(trained: Trained) -> Run {
    let golden = Golden::open("tiny.safetensors", "");
    Run { golden, model: load(&fixture("tiny-llama"), trained), rate: 1e-3, weight_decay: 0.01 }
}

fn smollm2(trained: Trained) -> Run {
    let golden = Golden::open("smollm2.safetensors", "");
    Run { golden, model: load(&default_model(), trained), rate: 1e-4, weight_decay: 0.01 }
}

#[test]
fn ten_full_steps_track_pytorch() {
    tiny(Trained::All).tracks("full");
}

#[test]
fn ten_adapter_steps_track_pytorch() {
    let mut run = Run { rate: 1e-2, weight_decay: 0.0, ..tiny(Trained::Lora) };
    run.model.add_adapter(&Adapter::read(&fixture("tiny-adapter")).unwrap()).unwrap();
    run.tracks("lora");
}

#[test]
#[ignore = "needs the default model; name its GGUF file in DORMANT_TEST_MODEL"]
fn full_steps_of_the_default_model_track_pytorch() {
    smollm2(Trained::All).tracks("full");
}

#[test]
#[ignore = "needs the default model; name its GGUF file in DORMANT_TEST_MODEL"]
fn adapter_steps_of_the_default_model_track_pytorch() {
    let mut run = Run { rate: 1e-3, weight_decay: 0.0, ..smollm2(Trained::Lora) };
    run.model.add_lora(&LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() }, 0).unwrap();
    let factors = run.model.parameters_mut().into_iter().filter(|p| p.name.ends_with(".lora_A.weight"));
    for (module, factor) in factors.enumerate() {
        factor.value = numbers::formula(factor.value.len(), 2 * module as u64, 0.08);
    }
    run.model.refresh();
    run.tracks("lora");
}
