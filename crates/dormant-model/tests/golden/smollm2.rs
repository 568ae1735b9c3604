//! `SmolLM2-135M`, dequantised from its GGUF file: logits, losses, and summaries of all gradients.

use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Inputs, Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_model::parameter::Parameter;
use dormant_tensor::Precision;
use dormant_tensor::isa::Isa;
use safetensors::SafeTensors;

use crate::numbers::{Golden, default_model, formula};
use crate::tiny::{batch, loss};

/// The file has every so many logits of the chats after the first.
const LOGIT_STRIDE: usize = 16;

/// Of norms and samples of gradients. The reference itself is up to 1.5e-4 from the same computation in f64.
const TOLERANCE: f64 = 2e-4;

fn golden() -> Golden {
    Golden::open("smollm2.safetensors", "")
}

/// A list of names in the metadata of the file.
fn names(golden: &Golden, key: &str) -> Vec<String> {
    let (_, header) = SafeTensors::read_metadata(&golden.bytes).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()[key]).unwrap()
}

fn load(precision: Precision, trained: Trained) -> Llama {
    let checkpoint = Checkpoint::open(&default_model()).unwrap();
    Llama::load_merged(&checkpoint, LoadOptions::new(precision, trained), None).unwrap()
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Compares a gradient with its summary: norm, sum, and evenly spaced samples. Each difference is taken relative to
/// what it could be at most, or is in the mean, for a tensor of this norm.
fn check_summary(golden: &Golden, prefix: &str, row: usize, parameter: &Parameter, values: &[f32]) {
    let norms = golden.numbers(&format!("{prefix}.norms"));
    let samples = golden.numbers(&format!("{prefix}.samples"));
    let count = samples.len() / norms.len();
    let (samples, expected) = (&samples[row * count..(row + 1) * count], norms[row]);
    let stride = (values.len() / count - 1) | 1;
    let check = |what: &str, error: f64| {
        assert!(error <= TOLERANCE, "{what} of {prefix} of {}: relative error {error:e}", parameter.name);
    };
    check("norm", (norm(values.iter().map(|x| f64::from(*x))) - expected).abs() / expected);
    let sum: f64 = values.iter().map(|x| f64::from(*x)).sum();
    let largest_sum = expected * (values.len() as f64).sqrt();
    check("sum", (sum - golden.numbers(&format!("{prefix}.sums"))[row]).abs() / largest_sum);
    let found = values.iter().step_by(stride).take(count);
    let difference = norm(found.zip(samples).map(|(found, sample)| f64::from(*found) - sample));
    let scale = norm(samples.iter().copied()).max(expected * (count as f64 / values.len() as f64).sqrt());
    check("samples", difference / scale);
}

/// Loss and gradients of the three chats.
fn backward(model: &mut Llama, golden: &Golden) -> f64 {
    let (batch, targets, _) = batch(golden, true);
    let activations = model.forward(&batch).unwrap();
    let (log_probs, d_hidden) = model.log_probs_backward(&activations.hidden, &targets);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    loss(&log_probs)
}

fn check_loss(found: f64, golden: &Golden, name: &str) {
    let expected = golden.numbers(name)[0];
    assert!((found - expected).abs() <= 1e-4 * expected, "{name}: {found} against {expected}");
}

/// Largest difference of the logits after the three prompts.
fn logit_error(model: &Llama, golden: &Golden) -> f64 {
    let error = |chat: usize| {
        let (batch, _) =
            dormant_model::batch::Batch::concatenate(&[golden.tokens(&format!("prompt.{chat}"))]);
        let hidden = model.hidden(&batch).unwrap();
        let logits = model.logits(&hidden, &[batch.len() - 1]);
        let stride = if chat == 0 { 1 } else { LOGIT_STRIDE };
        let expected = golden.numbers(&format!("last_logits.{chat}"));
        assert_eq!(logits.len().div_ceil(stride), expected.len());
        let found = logits.iter().step_by(stride);
        found.zip(expected).map(|(found, e)| (f64::from(*found) - e).abs()).fold(0.0, f64::max)
    };
    (0..3).map(error).fold(0.0, f64::max)
}

#[test]
#[ignore = "needs the default model; name its GGUF file in DORMANT_TEST_MODEL"]
fn logits_match_pytorch() {
    let golden = golden();
    let error = logit_error(&load(Precision::F32, Trained::Nothing), &golden);
    assert!(error <= 2e-3, "largest difference of a logit: {error:e}");
    if Isa::current().has_bf16() {
        // Logits reach 30, and bf16 keeps 8 bits of weights and activations.
        let error = logit_error(&load(Precision::Bf16, Trained::Nothing), &golden);
        assert!(error <= 0.5, "largest difference of a logit in bf16: {error:e}");
    }
}

#[test]
#[ignore = "needs the default model; name its GGUF file in DORMANT_TEST_MODEL"]
fn weights_loss_and_gradients_match_pytorch() {
    let golden = golden();
    let order = names(&golden, "parameters");
    let mut model = load(Precision::F32, Trained::All);
    check_loss(backward(&mut model, &golden), &golden, "loss");
    let parameters = model.parameters_mut();
    assert_eq!(parameters.len(), order.len());
    for parameter in parameters {
        let row = order.iter().position(|name| *name == parameter.name).unwrap();
        check_summary(&golden, "weight", row, parameter, &parameter.value);
        check_summary(&golden, "grad", row, parameter, &parameter.gradient);
    }
}

#[test]
#[ignore = "needs the default model; name its GGUF file in DORMANT_TEST_MODEL"]
fn loss_and_gradients_of_adapters_match_peft() {
    let golden = golden();
    let order = names(&golden, "modules");
    let mut model = load(Precision::F32, Trained::Lora);
    model.add_lora(&LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() }, 0).unwrap();
    let place = |name: &str| {
        let (module, factor) = name.strip_suffix(".weight").unwrap().rsplit_once(".lora_").unwrap();
        let row = order.iter().position(|m| m == module).unwrap();
        (row, factor.to_owned())
    };
    for parameter in model.parameters_mut() {
        let (row, factor) = place(&parameter.name);
        let (counter, width) = if factor == "A" { (2 * row, 0.08) } else { (2 * row + 1, 0.02) };
        parameter.value = formula(parameter.value.len(), counter as u64, width);
    }
    model.refresh();
    check_loss(backward(&mut model, &golden), &golden, "lora.loss");
    let parameters = model.parameters_mut();
    assert_eq!(parameters.len(), 2 * order.len());
    for parameter in parameters {
        let (row, factor) = place(&parameter.name);
        check_summary(&golden, &format!("lora_grad.{factor}"), row, parameter, &parameter.gradient);
    }
}
