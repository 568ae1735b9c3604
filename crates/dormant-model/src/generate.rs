//! Batched generation: prompts share prefixes, and a finished sequence makes room for the next one.

use dormant_tensor::PANEL;
use rayon::prelude::*;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::kv_cache::{KvCache, SegmentId};
use crate::llama::Llama;
use crate::sampler::{Sampler, Sampling};

/// What to generate, for all requests alike.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateConfig {
    /// Longest reply, in tokens.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end a reply; they are not part of it.
    pub stop_tokens: Vec<u32>,
    /// Sequences worked on at a time. Has no influence on the replies.
    pub concurrency: usize,
}

impl GenerateConfig {
    /// Replies of up to `max_new_tokens`, with 64 sequences at a time.
    pub fn new(max_new_tokens: usize, sampling: Sampling, stop_tokens: Vec<u32>) -> Self {
        Self { max_new_tokens, sampling, stop_tokens, concurrency: 64 }
    }
}

/// A prompt to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Tokens of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// Seed of this reply's draws. The reply depends on prompt, seed and weights, not on the other requests.
    pub seed: u64,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token came.
    Stop,
    /// The reply is as long as allowed, or as the model can read.
    Length,
    /// The caller had seen enough.
    Enough,
}

/// A generated reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// Log of the probability with which each token was drawn, and then that of the stop token if one came. The
    /// temperature and the truncation of the distribution are part of it; it is 0 where the choice was greedy.
    pub log_probs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// A sequence being generated.
struct Active {
    request: usize,
    /// Last segment of the prompt, then the reply's own.
    segment: SegmentId,
    sampler: Sampler,
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
}

impl Llama {
    /// Generates a reply to each request. After each token `enough(request, reply so far)` may end that reply;
    /// `progress(finished, total)` is told of finished replies, and ends the work by returning false.
    ///
    /// # Errors
    /// Prompts that are empty, too long or outside the vocabulary; [`Error::Interrupted`].
    pub fn generate(
        &self,
        requests: &[Request],
        config: &GenerateConfig,
        enough: &(dyn Fn(usize, &[u32]) -> bool + Sync),
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<Reply>> {
        let mut replies: Vec<Option<Reply>> = vec![None; requests.len()];
        let cache = KvCache::new(self);
        let mut run = Run { model: self, requests, config, cache, active: Vec::new(), logits: Vec::new() };
        let (root, shared) = run.shared_prefix()?;
        let mut waiting = 0..requests.len();
        let mut finished = 0;
        loop {
            let room = config.concurrency.max(1) - run.active.len();
            // Prompts are read together: a few sequences are allowed to finish before the next ones come in.
            if !waiting.is_empty() && (run.active.is_empty() || room * 4 >= config.concurrency) {
                let admitted = waiting.start..waiting.end.min(waiting.start + room);
                waiting.start = admitted.end;
                run.admit(admitted, root, shared)?;
            }
            if run.active.is_empty() {
                break;
            }
            for (request, reply) in run.step(enough)? {
                replies[request] = Some(reply);
                finished += 1;
                if !progress(finished, requests.len()) {
                    return Err(Error::Interrupted);
                }
            }
        }
        Ok(replies.into_iter().map(|r| r.expect("every request was admitted and finished")).collect())
    }
}

struct Run<'a> {
    model: &'a Llama,
    requests: &'a [Request],
    config: &'a GenerateConfig,
    cache: KvCache,
    active: Vec<Active>,
    /// Logits of the next token of each active sequence, `[active, vocabulary]`.
    logits: Vec<f32>,
}

impl Run<'_> {
    /// Reads what all prompts begin with. At least one token of each prompt is left.
    fn shared_prefix(&mut self) -> Result<(Option<SegmentId>, usize)> {
        let Some(first) = self.requests.first() else { return Ok((None, 0)) };
        let mut shared = usize::MAX;
        for request in self.requests {
            if request.prompt.is_empty() {
                return Err(Error::EmptyPrompt);
            }
            let common = first.prompt.iter().zip(&request.prompt).take_while(|(a, b)| a == b).count();
            shared = shared.min(common).min(request.prompt.len() - 1);
        }
        if shared == 0 {
            return Ok((None, 0));
        }
        let root = self.cache.add(self.model, None, shared);
        self.model.extend(&mut self.cache, &[(root, &first.prompt[..shared])])?;
        Ok((Some(root), shared))
    }

    /// Reads the prompts of `range` and computes the logits of their first tokens.
    fn admit(&mut self, range: std::ops::Range<usize>, root: Option<SegmentId>, shared: usize) -> Result<()> {
        let prompts: Vec<&[u32]> = self.requests[range.clone()].iter().map(|r| &r.prompt[shared..]).collect();
        let (batch, places) = Batch::share_prefixes(&prompts);
        let (ids, hidden) = self.model.prefill(&mut self.cache, &batch, root)?;
        let last: Vec<usize> =
            places.iter().map(|p| p.rows().last().expect("prompts are not empty")).collect();
        self.model.append_logits(&hidden, &last, &mut self.logits);
        for (request, place) in range.zip(&places) {
            let parent = ids[place.last_segment.expect("prompts are not empty")];
            let capacity = self.config.max_new_tokens.min(self.model.max_positions()).next_multiple_of(PANEL);
            self.active.push(Active {
                request,
                segment: self.cache.add(self.model, Some(parent), capacity),
                sampler: Sampler::new(self.config.sampling, self.requests[request].seed),
                tokens: Vec::new(),
                log_probs: Vec::new(),
            });
        }
        // The replies hold on to what they continue.
        ids.into_iter().for_each(|id| self.cache.release(id));
        Ok(())
    }

    /// Draws one token for each active sequence, then computes the logits of those that go on. Returns the
    /// finished ones.
    fn step(&mut self, enough: &(dyn Fn(usize, &[u32]) -> bool + Sync)) -> Result<Vec<(usize, Reply)>> {
        let (config, requests) = (self.config, self.requests);
        // The last token of a reply is not read, so that it needs no position.
        let positions = self.model.max_positions() + 1;
        let longest = |request: usize| config.max_new_tokens.min(positions - requests[request].prompt.len());
        let ends: Vec<Option<Finish>> = self
            .active
            .par_iter_mut()
            .zip(self.logits.par_chunks_exact_mut(self.model.config.vocab_size))
            .map(|(active, logits)| {
                if config.max_new_tokens == 0 {
                    return Some(Finish::Length);
                }
                let (token, log_prob) = active.sampler.next(logits);
                active.log_probs.push(log_prob);
                if config.stop_tokens.contains(&token) {
                    return Some(Finish::Stop);
                }
                active.tokens.push(token);
                if enough(active.request, &active.tokens) {
                    Some(Finish::Enough)
                } else if active.tokens.len() >= longest(active.request) {
                    Some(Finish::Length)
                } else {
                    None
                }
            })
            .collect();
        let mut finished = Vec::new();
        let mut going_on = Vec::with_capacity(self.active.len());
        for (active, end) in std::mem::take(&mut self.active).into_iter().zip(ends) {
            match end {
                Some(finish) => {
                    self.cache.release(active.segment);
                    let Active { request, tokens, log_probs, .. } = active;
                    finished.push((request, Reply { tokens, log_probs, finish }));
                }
                None => going_on.push(active),
            }
        }
        self.active = going_on;
        self.next_logits()?;
        Ok(finished)
    }

    fn next_logits(&mut self) -> Result<()> {
        self.logits.clear();
        if self.active.is_empty() {
            return Ok(());
        }
        let additions: Vec<(SegmentId, &[u32])> =
            self.active.iter().map(|a| (a.segment, &a.tokens[a.tokens.len() - 1..])).collect();
        let hidden = self.model.extend(&mut self.cache, &additions)?;
        let rows: Vec<usize> = (0..self.active.len()).collect();
        self.model.append_logits(&hidden, &rows, &mut self.logits);
        Ok(())
    }
}
