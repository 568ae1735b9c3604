//! Greedy replies.

use std::time::Instant;

use dormant_model::generate::{GenerateConfig, Request};
use dormant_model::sampler::Sampling as Choice;
use serde_json::{Value, json};

use crate::Result;
use crate::model::Model;
use crate::request::Sampling;

pub(crate) fn answer(model: &mut Model, request: &Sampling) -> Result<Value> {
    let model = model.sampler(request.precision)?;
    let requests: Vec<Request> =
        request.prompts.iter().map(|prompt| Request { prompt: prompt.clone(), seed: 0 }).collect();
    let config = GenerateConfig::new(request.new_tokens, Choice::Greedy, Vec::new());
    let start = Instant::now();
    let replies = model.generate(&requests, &config, &|_, _| false, &mut |_, _| true)?;
    let seconds = start.elapsed().as_secs_f64();
    let replies: Vec<Vec<u32>> = replies.into_iter().map(|reply| reply.tokens).collect();
    let new_tokens: usize = replies.iter().map(Vec::len).sum();
    Ok(json!({
        "precision": request.precision.name(),
        "seconds": seconds,
        "new_tokens": new_tokens,
        "new_tokens_per_second": new_tokens as f64 / seconds,
        "replies": replies,
    }))
}
