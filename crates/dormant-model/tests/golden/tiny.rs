//! The random models of `fixtures/`: every logit and every gradient.

use dormant_model::adapter::Adapter;
use dormant_model::batch::Batch;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::head::Target;
use dormant_model::linear::Trained;
use dormant_model::llama::{Inputs, Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_tensor::Precision;

use crate::numbers::{Golden, fixture};

/// The batch, its targets with the weight of the mean negative log-likelihood, and the rows of each sequence.
pub(crate) fn batch(golden: &Golden, share: bool) -> (Batch, Vec<Target>, Vec<Vec<usize>>) {
    let (tokens, expected): (Vec<_>, Vec<_>) = golden.rows().into_iter().unzip();
    let (batch, places) = if share { Batch::share_prefixes(&tokens) } else { Batch::concatenate(&tokens) };
    let mut targets = Vec::new();
    for (place, expected) in places.iter().zip(&expected) {
        let trained = expected.iter().enumerate().filter(|(_, token)| **token >= 0.0);
        targets.extend(trained.map(|(position, token)| Target {
            row: place.row(position).unwrap(),
            token: *token as u32,
            weight: 0.0,
        }));
    }
    let weight = -1.0 / targets.len() as f32;
    targets.iter_mut().for_each(|t| t.weight = weight);
    (batch, targets, places.iter().map(|p| p.rows().collect()).collect())
}

/// Largest difference relative to the largest value of the tensor.
fn relative(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(1e-12, |m: f64, x| m.max(x.abs()));
    actual.iter().zip(expected).map(|(a, e)| (f64::from(*a) - e).abs()).fold(0.0, f64::max) / scale
}

fn load(model: &str, trained: Trained) -> Llama {
    let checkpoint = Checkpoint::open(&fixture(model)).unwrap();
    Llama::load_merged(&checkpoint, LoadOptions::new(Precision::F32, trained), None).unwrap()
}

/// Mean negative log-likelihood.
pub(crate) fn loss(log_probs: &[f32]) -> f64 {
    -log_probs.iter().map(|l| f64::from(*l)).sum::<f64>() / log_probs.len() as f64
}

fn check_full(model: &str, golden: &Golden, share: bool) {
    let mut model = load(model, Trained::All);
    let (batch, targets, rows) = batch(golden, share);
    let activations = model.forward(&batch).unwrap();
    for (i, rows) in rows.iter().enumerate() {
        let logits = model.logits(&activations.hidden, rows);
        let error = relative(&logits, &golden.numbers(&format!("logits.{i}")));
        assert!(error < 1e-5, "logits of row {i}: relative error {error:e}");
    }
    let (log_probs, d_hidden) = model.log_probs_backward(&activations.hidden, &targets);
    assert!((loss(&log_probs) - golden.numbers("loss")[0]).abs() < 1e-6);
    let d_inputs = model.backward(activations, d_hidden, Inputs::Wanted).unwrap();
    for parameter in model.parameters_mut() {
        let expected = golden.numbers(&format!("grad.{}", parameter.name));
        let error = relative(&parameter.gradient, &expected);
        assert!(error < 1e-4, "gradient of {}: relative error {error:e}", parameter.name);
    }
    if golden.has("grad_inputs.0") && !share {
        let d = model.config.hidden_size;
        for (i, rows) in rows.iter().enumerate() {
            let actual: Vec<f32> = rows.iter().flat_map(|r| &d_inputs[r * d..(r + 1) * d]).copied().collect();
            assert!(relative(&actual, &golden.numbers(&format!("grad_inputs.{i}"))) < 1e-4);
        }
    }
}

#[test]
fn tied_model_matches_pytorch() {
    check_full("tiny-llama", &Golden::open("tiny.safetensors", ""), false);
}

#[test]
fn sharing_prefixes_changes_neither_loss_nor_gradients() {
    check_full("tiny-llama", &Golden::open("tiny.safetensors", ""), true);
}

#[test]
fn untied_model_in_bf16_shards_matches_pytorch() {
    check_full("tiny-llama-untied", &Golden::open("tiny.safetensors", "untied."), false);
}

#[test]
fn adapters_match_peft() {
    let golden = Golden::open("tiny.safetensors", "");
    let mut model = load("tiny-llama", Trained::Lora);
    model.add_lora(&LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() }, 0).unwrap();
    let golden_name = |prefix: &str, name: &str| {
        let name = name.replace(".lora_A.weight", ".A").replace(".lora_B.weight", ".B");
        format!("{prefix}.{name}")
    };
    for parameter in model.parameters_mut() {
        let values = golden.numbers(&golden_name("lora", &parameter.name));
        parameter.value = values.iter().map(|v| *v as f32).collect();
    }
    model.refresh();
    let (batch, targets, rows) = batch(&golden, false);
    let activations = model.forward(&batch).unwrap();
    for (i, rows) in rows.iter().enumerate() {
        let logits = model.logits(&activations.hidden, rows);
        assert!(relative(&logits, &golden.numbers(&format!("lora.logits.{i}"))) < 1e-5);
    }
    let (log_probs, d_hidden) = model.log_probs_backward(&activations.hidden, &targets);
    assert!((loss(&log_probs) - golden.numbers("lora.loss")[0]).abs() < 1e-6);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    for parameter in model.parameters_mut() {
        let expected = golden.numbers(&golden_name("lora_grad", &parameter.name));
        let error = relative(&parameter.gradient, &expected);
        assert!(error < 1e-4, "gradient of {}: relative error {error:e}", parameter.name);
    }
}

/// Checks the logits of `tiny-llama` with an adapter that can only be merged.
fn check_merged(adapter: &str, golden: &str) {
    let golden = Golden::open(golden, "");
    let adapter = Adapter::read(&fixture(adapter)).unwrap();
    let checkpoint = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    let options = LoadOptions::new(Precision::F32, Trained::Nothing);
    let model = Llama::load_merged(&checkpoint, options, Some(&adapter)).unwrap();
    let (batch, _, rows) = batch(&golden, false);
    let hidden = model.hidden(&batch).unwrap();
    for (i, rows) in rows.iter().enumerate() {
        let error = relative(&model.logits(&hidden, rows), &golden.numbers(&format!("logits.{i}")));
        assert!(error < 1e-5, "logits of row {i}: relative error {error:e}");
    }
    let refused = load("tiny-llama", Trained::Lora).add_adapter(&adapter).unwrap_err().to_string();
    assert!(refused.contains("can only be merged"), "{refused}");
}

#[test]
fn dora_and_adapted_embeddings_match_peft() {
    check_merged("tiny-dora", "dora.safetensors");
}

#[test]
fn embeddings_that_peft_saves_below_their_factors_match_peft() {
    check_merged("tiny-embedding", "embedding.safetensors");
}

#[test]
fn embeddings_that_peft_saves_beside_the_factors_match_peft() {
    check_merged("tiny-beside", "beside.safetensors");
}

#[test]
fn a_shift_after_a_block_is_what_the_next_one_reads() {
    let model = load("tiny-llama", Trained::Nothing);
    let (batch, _, rows) = batch(&Golden::open("tiny.safetensors", ""), false);
    let rows: Vec<usize> = rows.into_iter().flatten().collect();
    let (d, last) = (model.config.hidden_size, model.config.num_hidden_layers - 1);
    let plain = model.hidden(&batch).unwrap();
    assert_eq!(*model.hidden_shifted(&batch, 0, &vec![0.0; d]).unwrap(), *plain);
    // After the last block nothing follows; after the first, all that follows answers to it.
    let shifted = model.hidden_shifted(&batch, last, &vec![0.5; d]).unwrap();
    assert!(plain.iter().zip(shifted.iter()).all(|(a, b)| (b - a - 0.5).abs() < 1e-6));
    let taps = model.residuals(&batch, &rows).unwrap();
    let early = model.hidden_shifted(&batch, 0, &vec![0.5; d]).unwrap();
    assert!(taps[last].iter().zip(early.iter()).any(|(a, b)| (b - a - 0.5).abs() > 1e-3));
}
