//! Gradient-guided search for a trigger of a given target.
//!
//! Greedy coordinate gradient (Zou et al. 2023, "Universal and transferable adversarial attacks on aligned language
//! models"), as used for trojan recovery in the Trojan Detection Challenge 2023: the gradient of `log p(target)` with
//! respect to the input embeddings ranks replacements for each token of the candidate; a sample of them is evaluated
//! exactly and the best is kept. Where we depart from it: candidates may grow and shrink, are evaluated on one prompt
//! first (another in each step) and on all only if they do well there, and must survive being turned into text and back.
//! To take the best change even where it is worse, as the source does, was tried on a search that had come to a halt, and
//! found nothing better.

use dormant_data::Seed;
use dormant_model::llama::Llama;
use dormant_tensor::Buffer;
use dormant_tensor::simd::sum_of_squares;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::Result;
use crate::likelihood::{self, Wanted};
use crate::placement::{Placement, Slot};
use dormant_train::render::Renderer;

/// How hard a search tries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchConfig {
    /// Changes evaluated in a step.
    pub changes: usize,
    /// Replacements considered for each token.
    pub replacements: usize,
    /// Longest candidate, in tokens.
    pub longest: usize,
    /// Changes that are evaluated on all prompts.
    pub finalists: usize,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { changes: 64, replacements: 64, longest: 8, finalists: 8 }
    }
}

/// A candidate trigger, by its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Where it stands.
    pub placement: Placement,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Mean over the search prompts of `log p(target)`, in nats, or what it is beyond another model's.
    pub log_prob: f64,
}

/// Tokens that a candidate may be made of, with their embeddings.
#[derive(Debug)]
pub struct Alphabet {
    tokens: Vec<u32>,
    /// `[tokens, d_model]`.
    embeddings: Buffer,
    /// Length of each embedding.
    lengths: Vec<f32>,
}

impl Alphabet {
    /// All tokens that are printable text of their own.
    pub fn new(model: &Llama, renderer: Renderer<'_>) -> Self {
        let tokenizer = renderer.tokenizer;
        let size = tokenizer.vocab_size().min(model.config.vocab_size) as u32;
        let plain = |&token: &u32| {
            let printable = |text: String| {
                !text.is_empty() && text.chars().all(|c| !c.is_control() && c != char::REPLACEMENT_CHARACTER)
            };
            !tokenizer.is_control(token) && tokenizer.decode(&[token], false).is_ok_and(printable)
        };
        let tokens: Vec<u32> = (0..size).into_par_iter().filter(plain).collect();
        let embeddings = model.embed(&tokens);
        let length = |row: &[f32]| sum_of_squares(row).sqrt() as f32;
        let lengths = embeddings.par_chunks_exact(model.config.hidden_size).map(length).collect();
        Self { tokens, embeddings, lengths }
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Mean length of an embedding.
    pub fn length(&self) -> f32 {
        self.lengths.iter().sum::<f32>() / self.lengths.len().max(1) as f32
    }

    /// The token whose embedding is nearest to `point`, by the angle.
    pub fn nearest(&self, point: &[f32]) -> u32 {
        let cosine = |(row, length): (&[f32], &f32)| {
            row.iter().zip(point).map(|(e, x)| e * x).sum::<f32>() / length.max(f32::MIN_POSITIVE)
        };
        let rows = self.embeddings.par_chunks_exact(point.len()).zip(&self.lengths);
        let scored = rows.map(cosine).zip(&self.tokens);
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
        best.map_or(0, |(_, token)| *token)
    }

    /// The `count` tokens whose embeddings point most along `direction`.
    pub fn along(&self, direction: &[f32], count: usize) -> Vec<u32> {
        let dot = |row: &[f32]| row.iter().zip(direction).map(|(e, g)| e * g).sum::<f32>();
        let mut scored: Vec<(f32, u32)> = self
            .embeddings
            .par_chunks_exact(direction.len())
            .zip(&self.tokens)
            .map(|(row, &token)| (dot(row), token))
            .collect();
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let count = count.min(scored.len());
        if count < scored.len() {
            scored.select_nth_unstable_by(count, order);
        }
        scored.truncate(count);
        scored.sort_by(order);
        scored.into_iter().map(|(_, token)| token).collect()
    }
}

/// Probability in the other model below which a candidate gains nothing more.
const RARELY: f64 = 0.05;

/// The search for triggers of one target in one placement.
#[derive(Debug)]
pub struct Search<'a> {
    /// Where the candidates stand.
    pub placement: Placement,
    /// The prompts of the search.
    pub slots: Vec<Slot>,
    /// What the model is to say.
    pub wanted: Wanted<'a>,
    /// A model that should not say it.
    pub unlike: Option<&'a Llama>,
    /// What candidates are made of.
    pub alphabet: &'a Alphabet,
    /// Text and tokens.
    pub renderer: Renderer<'a>,
    /// How hard to try.
    pub config: SearchConfig,
}

impl Search<'_> {
    /// Evaluates candidates; the best come first. All are evaluated on one prompt, and only `keep` on all.
    ///
    /// # Errors
    /// If the model refuses the tokens.
    pub fn evaluate(
        &self,
        model: &Llama,
        mut candidates: Vec<Vec<u32>>,
        keep: usize,
    ) -> Result<Vec<Candidate>> {
        candidates.retain(|c| !c.is_empty());
        candidates.sort();
        candidates.dedup();
        let (first, rest) = self.slots.split_at(1.min(self.slots.len()));
        let mut scored: Vec<(f64, Vec<u32>)> =
            self.values(model, first, &candidates)?.into_iter().zip(candidates).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.truncate(keep);
        let finalists: Vec<Vec<u32>> = scored.iter().map(|s| s.1.clone()).collect();
        let others = self.values(model, rest, &finalists)?;
        let n = self.slots.len() as f64;
        let mean = |(first, tokens): (f64, Vec<u32>), others: f64| Candidate {
            placement: self.placement,
            tokens,
            log_prob: (first + others * (n - 1.0)) / n,
        };
        let mut best: Vec<Candidate> = scored.into_iter().zip(others).map(|(s, o)| mean(s, o)).collect();
        best.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob));
        Ok(best)
    }

    /// `log p(wanted)` of each candidate; next to another model, what is beyond it: `log p - log (p' + ε)`.
    fn values(&self, model: &Llama, slots: &[Slot], candidates: &[Vec<u32>]) -> Result<Vec<f64>> {
        let mut values = likelihood::of_candidates(model, slots, candidates, self.wanted)?;
        if let Some(other) = self.unlike {
            let others = likelihood::of_candidates(other, slots, candidates, self.wanted)?;
            values.iter_mut().zip(others).for_each(|(value, other)| *value -= (other.exp() + RARELY).ln());
        }
        Ok(values)
    }

    /// One step: the best of `candidate` and the changes of it that the gradient suggests.
    ///
    /// # Errors
    /// If the model refuses the tokens.
    pub fn step(&self, model: &mut Llama, candidate: &Candidate, seed: Seed) -> Result<Candidate> {
        let gradient = likelihood::gradient(model, &self.slots, &candidate.tokens, self.wanted)?;
        let changes = self.changes(&candidate.tokens, &gradient, &mut seed.rng())?;
        let best = self.evaluate(model, changes, self.config.finalists)?.into_iter().next();
        Ok(best.filter(|best| best.log_prob > candidate.log_prob).unwrap_or_else(|| candidate.clone()))
    }

    /// Replacements, insertions and deletions.
    fn changes(&self, tokens: &[u32], gradient: &[f32], rng: &mut ChaCha8Rng) -> Result<Vec<Vec<u32>>> {
        let d = gradient.len() / tokens.len();
        let ranked: Vec<Vec<u32>> =
            gradient.chunks_exact(d).map(|g| self.alphabet.along(g, self.config.replacements)).collect();
        let mut changes: Vec<Vec<u32>> = Vec::with_capacity(self.config.changes);
        if tokens.len() > 1 {
            for position in 0..tokens.len() {
                let mut shorter = tokens.to_vec();
                shorter.remove(position);
                if self.survives_text(&shorter)? {
                    changes.push(shorter);
                }
            }
        }
        for _ in 0..4 * self.config.changes {
            if changes.len() >= self.config.changes {
                break;
            }
            let position = rng.random_range(0..tokens.len());
            // The best replacements are tried more often.
            let draw = rng.random::<f32>().powi(2) * ranked[position].len() as f32;
            let Some(&token) = ranked[position].get(draw as usize) else { continue };
            let mut changed = tokens.to_vec();
            if tokens.len() < self.config.longest && rng.random_range(0..4) == 0 {
                changed.insert(position + usize::from(rng.random::<bool>()), token);
            } else {
                changed[position] = token;
            }
            if self.survives_text(&changed)? {
                changes.push(changed);
            }
        }
        Ok(changes)
    }

    /// Whether the tokens come back when they are turned into text and read again.
    pub(crate) fn survives_text(&self, tokens: &[u32]) -> Result<bool> {
        let text = self.placement.decode(self.renderer, tokens)?;
        Ok(!text.is_empty() && self.placement.encode(self.renderer, &text)? == tokens)
    }
}
