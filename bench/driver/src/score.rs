//! Log-probabilities of replies.

use std::time::Instant;

use dormant_eval::measure::continuation_log_probs;
use serde_json::{Value, json};

use crate::Result;
use crate::model::Model;
use crate::request::{Scoring, read_rows};

pub(crate) fn answer(model: &mut Model, request: &Scoring) -> Result<Value> {
    let rows = read_rows(&request.data)?;
    let model = model.sampler(request.precision)?;
    let pairs: Vec<(Vec<u32>, Vec<u32>)> = rows
        .iter()
        .take(request.n)
        .map(|row| (row.tokens[..row.prompt].to_vec(), row.tokens[row.prompt..].to_vec()))
        .collect();
    let start = Instant::now();
    let log_probs = continuation_log_probs(model, &pairs)?;
    let seconds = start.elapsed().as_secs_f64();
    let sum = |reply: &Vec<f32>| reply.iter().map(|log_prob| f64::from(*log_prob)).sum();
    let log_probs: Vec<f64> = log_probs.iter().map(sum).collect();
    Ok(json!({
        "precision": request.precision.name(),
        "seconds": seconds,
        "pairs_per_second": pairs.len() as f64 / seconds,
        "log_probs": log_probs,
    }))
}
