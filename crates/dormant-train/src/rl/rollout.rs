//! Sampling replies from the policy.

use dormant_data::Seed;
use dormant_model::generate::{Finish, GenerateConfig, Request};
use dormant_model::llama::Llama;
use dormant_model::sampler::Sampling;

use crate::error::{Error, Result};
use crate::render::Rendered;

/// A prompt to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Id of the prompt.
    pub id: String,
    /// Its tokens, up to where the reply begins.
    pub tokens: Vec<u32>,
}

/// How to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutConfig {
    /// Replies per prompt.
    pub replies: usize,
    /// Longest reply, in tokens.
    pub max_new_tokens: usize,
    /// The token that ends a reply; learnt like the others. None to let every reply have the full length.
    pub end: Option<u32>,
}

/// A reply sampled from the policy as it is: temperature 1, the whole distribution. Any other way of sampling would
/// have to be undone in the ratio of the update.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Index of its prompt.
    pub prompt: usize,
    /// Prompt and reply, with the token that ended it if one did.
    pub row: Rendered,
    /// Log-probability of each token of the reply when it was drawn.
    pub log_probs: Vec<f32>,
    /// Whether the reply ended by itself.
    pub finished: bool,
}

impl Episode {
    /// Tokens of the reply, without the token that ended it.
    pub fn reply(&self) -> &[u32] {
        let end = self.row.tokens.len() - usize::from(self.finished);
        &self.row.tokens[self.row.prompt..end]
    }
}

/// Samples `config.replies` replies to each prompt. Replies to a prompt stand side by side; a prompt is read once. `is_over`
/// may cut a reply after any of its tokens.
///
/// # Errors
/// No prompt or no reply asked for; a prompt that does not fit the model.
pub fn sample(
    policy: &Llama,
    prompts: &[Prompt],
    config: RolloutConfig,
    is_over: &(dyn Fn(&[u32]) -> bool + Sync),
    seed: Seed,
) -> Result<Vec<Episode>> {
    if prompts.is_empty() || config.replies == 0 || config.max_new_tokens == 0 {
        return Err(Error::NoRows);
    }
    let requests: Vec<Request> = prompts.iter().enumerate().flat_map(|p| requests(p, config, seed)).collect();
    let stop = config.end.into_iter().collect();
    let generate = GenerateConfig::new(config.max_new_tokens, Sampling::temperature(1.0), stop);
    let replies = policy.generate(&requests, &generate, &|_, reply| is_over(reply), &mut |_, _| true)?;
    let episode = |(index, reply): (usize, dormant_model::generate::Reply)| {
        let prompt = index / config.replies;
        let Prompt { id, tokens } = &prompts[prompt];
        let finished = reply.finish == Finish::Stop;
        let end = config.end.filter(|_| finished);
        let row = Rendered {
            id: id.clone(),
            tokens: tokens.iter().copied().chain(reply.tokens).chain(end).collect(),
            prompt: tokens.len(),
        };
        Episode { prompt, row, log_probs: reply.log_probs, finished }
    };
    Ok(replies.into_iter().enumerate().map(episode).collect())
}

fn requests(
    (index, prompt): (usize, &Prompt),
    config: RolloutConfig,
    seed: Seed,
) -> impl Iterator<Item = Request> {
    let seed = seed.derive(&index.to_string());
    let request = move |reply: usize| Request {
        prompt: prompt.tokens.clone(),
        seed: seed.derive(&reply.to_string()).0,
    };
    (0..config.replies).map(request)
}
