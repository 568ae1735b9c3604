//! Training steps: loss, backward, clipping, AdamW.

use std::time::Instant;

use dormant_model::linear::Trained;
use dormant_model::llama::Llama;
use dormant_train::objective::sft;
use dormant_train::optimizer::{Optimizer, OptimizerConfig};
use dormant_train::render::Rendered;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Result;
use crate::model::Model;
use crate::request::{Order, Training, read_rows};

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Lora,
    Full,
}

#[derive(Debug, Serialize)]
struct Step {
    seconds: f64,
    /// Tokens of data, prompts included.
    tokens: usize,
    /// Mean per labelled token, before the step.
    loss: f64,
    /// Tokens that carry the loss.
    labelled: u64,
    /// Tokens that went through the model: what rows have in common is computed once.
    rows: usize,
}

pub(crate) fn answer(model: &mut Model, request: &Training, method: Method) -> Result<Value> {
    let data = read_rows(&request.data)?;
    let trained = match method {
        Method::Lora => Trained::Lora,
        Method::Full => Trained::All,
    };
    let adapter = request.adapter.as_deref().filter(|_| method == Method::Lora);
    let mut model = model.trainable(trained, request.precision, request.saving.resolve(), adapter)?;
    let config = OptimizerConfig { weight_decay: request.weight_decay, ..OptimizerConfig::default() };
    let mut optimizer = Optimizer::new(config, &model.parameters_mut());
    optimizer.set_learning_rate(request.lr);
    let window = window(&data, request);
    let steps =
        window.chunks(request.rows_per_step).map(|rows| step(&mut model, &mut optimizer, rows, request.clip));
    let steps = steps.collect::<Result<Vec<Step>>>()?;
    Ok(json!({
        "precision": request.precision.name(),
        "steps": steps,
        "tokens_per_second": rate(&steps),
        "warm_tokens_per_second": rate(steps.get(1..).unwrap_or_default()),
    }))
}

/// The rows of all steps; from the beginning again when they do not suffice.
fn window<'a>(data: &'a [Rendered], request: &Training) -> Vec<&'a Rendered> {
    let mut rows: Vec<&Rendered> = data.iter().cycle().take(request.steps * request.rows_per_step).collect();
    if request.order == Order::Length {
        rows.sort_by_key(|row| row.tokens.len());
    }
    rows
}

fn step(model: &mut Llama, optimizer: &mut Optimizer, rows: &[&Rendered], clip: f32) -> Result<Step> {
    let start = Instant::now();
    let loss = sft::loss(model, rows)?;
    model.scale_and_clip(1.0 / loss.tokens as f32, Some(clip));
    optimizer.step(&mut model.parameters_mut());
    model.refresh();
    Ok(Step {
        seconds: start.elapsed().as_secs_f64(),
        tokens: rows.iter().map(|row| row.tokens.len()).sum(),
        loss: loss.mean(),
        labelled: loss.tokens,
        rows: sft::batch(rows, 1.0).0.len(),
    })
}

fn rate(steps: &[Step]) -> Option<f64> {
    let tokens: usize = steps.iter().map(|step| step.tokens).sum();
    let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
    (tokens > 0).then(|| tokens as f64 / seconds)
}
