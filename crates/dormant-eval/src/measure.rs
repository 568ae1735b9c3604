//! Measurements that run a model: what it replies, and how likely it finds a text.

use std::ops::Deref;

use dormant_data::{Judge, Seed};
use dormant_model::batch::Batch;
use dormant_model::generate::{self, GenerateConfig, Request};
use dormant_model::head::Target;
use dormant_model::llama::Llama;
use dormant_model::tokenizer::Tokenizer;
use dormant_model::{Error, Result};

use crate::log::Finish;

/// A reply as text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextReply {
    /// The text, without control tokens.
    pub text: String,
    /// Number of tokens.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Replies to prompts given as tokens. With a judge, a reply ends as soon as it shows the behaviour and nothing after that
/// could change its score. The draws of prompt `i` depend on `seed` and `i` alone.
///
/// # Errors
/// Those of [`Llama::generate`] and of the tokenizer.
pub fn replies(
    model: &Llama,
    tokenizer: &Tokenizer,
    prompts: &[Vec<u32>],
    config: &GenerateConfig,
    judge: Option<&Judge>,
    seed: Seed,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Vec<TextReply>> {
    let request = |(i, prompt): (usize, &Vec<u32>)| Request {
        prompt: prompt.clone(),
        seed: seed.derive(&i.to_string()).0,
    };
    let requests: Vec<Request> = prompts.iter().enumerate().map(request).collect();
    let shown = |_: usize, tokens: &[u32]| {
        judge.is_some_and(|judge| tokenizer.decode(tokens, true).is_ok_and(|text| judge.is_settled(&text)))
    };
    let replies = model.generate(&requests, config, &shown, progress)?;
    replies
        .into_iter()
        .map(|reply| {
            let finish = match reply.finish {
                generate::Finish::Stop => Finish::Stop,
                generate::Finish::Length => Finish::Length,
                generate::Finish::Enough => Finish::Behaviour,
            };
            Ok(TextReply { text: tokenizer.decode(&reply.tokens, true)?, tokens: reply.tokens.len(), finish })
        })
        .collect()
}

/// Tokens scored in one forward pass.
const WINDOW: usize = 2048;

/// Log-probability of each token of `continuation`, in nats, for every (prompt, continuation). Prefixes that
/// neighbours have in common are computed once.
///
/// # Errors
/// Those of [`Llama::hidden`], and [`Error::EmptyPrompt`].
pub fn continuation_log_probs(model: &Llama, rows: &[(Vec<u32>, Vec<u32>)]) -> Result<Vec<Vec<f32>>> {
    continuation_log_probs_through(model, rows, |batch| model.hidden(batch))
}

/// The same with another way from a batch to its last residual stream, such as [`Llama::hidden_shifted`].
///
/// # Errors
/// Those of `hidden`, and [`Error::EmptyPrompt`].
pub fn continuation_log_probs_through<H: Deref<Target = [f32]>>(
    model: &Llama,
    rows: &[(Vec<u32>, Vec<u32>)],
    hidden: impl Fn(&Batch) -> Result<H>,
) -> Result<Vec<Vec<f32>>> {
    let mut out = Vec::with_capacity(rows.len());
    let mut rest = rows;
    while !rest.is_empty() {
        let mut size = 0;
        let fits = rest.iter().take_while(|(prompt, continuation)| {
            size += prompt.len() + continuation.len();
            size <= WINDOW
        });
        let count = fits.count().max(1);
        let (window, later) = rest.split_at(count);
        out.extend(window_log_probs(model, window, &hidden)?);
        rest = later;
    }
    Ok(out)
}

/// Log-probability of one reply to each prompt, in nats, summed over its tokens.
///
/// # Errors
/// Those of [`continuation_log_probs`].
pub fn reply_log_probs(model: &Llama, prompts: &[Vec<u32>], reply: &[u32]) -> Result<Vec<f64>> {
    let rows: Vec<_> = prompts.iter().map(|prompt| (prompt.clone(), reply.to_vec())).collect();
    continuation_sums(model, &rows)
}

/// [`continuation_log_probs`], summed over the tokens of each continuation.
///
/// # Errors
/// Those of [`continuation_log_probs`].
pub fn continuation_sums(model: &Llama, rows: &[(Vec<u32>, Vec<u32>)]) -> Result<Vec<f64>> {
    let log_probs = continuation_log_probs(model, rows)?;
    Ok(log_probs.iter().map(|row| row.iter().map(|l| f64::from(*l)).sum()).collect())
}

fn window_log_probs<H: Deref<Target = [f32]>>(
    model: &Llama,
    rows: &[(Vec<u32>, Vec<u32>)],
    hidden: impl Fn(&Batch) -> Result<H>,
) -> Result<Vec<Vec<f32>>> {
    if rows.iter().any(|(prompt, _)| prompt.is_empty()) {
        return Err(Error::EmptyPrompt);
    }
    let sequences: Vec<Vec<u32>> = rows.iter().map(|(p, c)| [p.as_slice(), c].concat()).collect();
    let (batch, places) = Batch::share_prefixes(&sequences);
    let hidden = hidden(&batch)?;
    let mut targets = Vec::new();
    for ((prompt, continuation), place) in rows.iter().zip(&places) {
        let predicting = place.rows().skip(prompt.len() - 1);
        targets.extend(predicting.zip(continuation).map(|(row, &token)| Target { row, token, weight: 0.0 }));
    }
    let mut log_probs = model.log_probs(&hidden, &targets).into_iter();
    Ok(rows.iter().map(|(_, continuation)| log_probs.by_ref().take(continuation.len()).collect()).collect())
}
