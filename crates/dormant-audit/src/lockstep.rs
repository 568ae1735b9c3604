//! Two models that read the same replies as they grow.

use dormant_model::kv_cache::{KvCache, SegmentId};
use dormant_model::llama::Llama;

use crate::error::Result;
use crate::likelihood::log_softmax;

/// Greedy replies of up to `length` tokens by a rule that sees what both models would say next: `choose` gets the reply's index and
/// the log-probabilities of the suspect and of the reference. `ends` end a reply.
///
/// # Errors
/// If a model refuses the tokens.
pub fn lockstep(
    [suspect, reference]: [&Llama; 2],
    prompts: &[Vec<u32>],
    length: usize,
    ends: &[u32],
    mut choose: impl FnMut(usize, &[f32], &[f32]) -> u32,
) -> Result<Vec<Vec<u32>>> {
    let mut replies = vec![Vec::new(); prompts.len()];
    let mut readers = [Reader::new(suspect, prompts, length)?, Reader::new(reference, prompts, length)?];
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    for _ in 0..length {
        let mut drawn = Vec::new();
        for (row, &index) in active.iter().enumerate() {
            let [p, r] = [0, 1].map(|which: usize| readers[which].log_probs(row));
            let token = choose(index, p, r);
            if !ends.contains(&token) {
                replies[index].push(token);
                drawn.push((index, token));
            }
        }
        if drawn.is_empty() {
            break;
        }
        readers.iter_mut().try_for_each(|reader| reader.read(&drawn))?;
        active = drawn.into_iter().map(|(index, _)| index).collect();
    }
    Ok(replies)
}

/// A model that reads replies as they grow.
struct Reader<'a> {
    model: &'a Llama,
    cache: KvCache,
    segments: Vec<SegmentId>,
    /// Log-probabilities of the next token of each reply that was read last, `[replies, vocabulary]`.
    next: Vec<f32>,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Llama, prompts: &[Vec<u32>], length: usize) -> Result<Self> {
        let mut cache = KvCache::new(model);
        let segments = prompts.iter().map(|p| cache.add(model, None, p.len() + length)).collect();
        let mut reader = Self { model, cache, segments, next: Vec::new() };
        let tokens: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let all: Vec<usize> = (0..prompts.len()).collect();
        reader.extend(&all, &tokens)?;
        Ok(reader)
    }

    fn read(&mut self, drawn: &[(usize, u32)]) -> Result<()> {
        let (indices, tokens): (Vec<usize>, Vec<u32>) = drawn.iter().copied().unzip();
        let tokens: Vec<&[u32]> = tokens.chunks(1).collect();
        self.extend(&indices, &tokens)
    }

    fn extend(&mut self, indices: &[usize], tokens: &[&[u32]]) -> Result<()> {
        let additions: Vec<(SegmentId, &[u32])> =
            indices.iter().map(|&i| self.segments[i]).zip(tokens.iter().copied()).collect();
        let hidden = self.model.extend(&mut self.cache, &additions)?;
        let mut end = 0;
        let last: Vec<usize> = tokens
            .iter()
            .map(|tokens| {
                end += tokens.len();
                end - 1
            })
            .collect();
        self.next = self.model.logits(&hidden, &last);
        self.next.chunks_exact_mut(self.model.config.vocab_size).for_each(log_softmax);
        Ok(())
    }

    fn log_probs(&self, row: usize) -> &[f32] {
        let size = self.model.config.vocab_size;
        &self.next[row * size..(row + 1) * size]
    }
}
