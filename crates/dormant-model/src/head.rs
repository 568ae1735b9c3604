//! The final norm and the unembedding: log-probabilities where they are wanted, and nowhere else.

use dormant_tensor::cross_entropy::{log_probs, log_probs_backward};
use dormant_tensor::gemm::{Into, matmul};
use dormant_tensor::norm::{rms_norm, rms_norm_backward, rms_norm_gain_backward};
use dormant_tensor::{Buffer, Packed, View, simd};
use rayon::prelude::*;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::linear::Trained;
use crate::llama::{Llama, LoadOptions, gather};
use crate::parameter::Parameter;

/// A token whose log-probability is wanted: after row `row` of the batch comes `token`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Row that predicts.
    pub row: usize,
    /// Token that is predicted.
    pub token: u32,
    /// Derivative of the objective with respect to this log-probability.
    pub weight: f32,
}

/// Rows whose logits are in memory at a time.
const ROWS: usize = 120;

/// Tokens that one product of the backward pass sums over. A single chain of additions over the whole vocabulary
/// would leave only three or four digits of the gradient.
const TOKENS: usize = 2048;

#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) norm: Parameter,
    /// `lm_head.weight`, `[vocabulary, d_model]`, where it is not the embedding and is trained.
    own: Option<Parameter>,
    tied: bool,
    forward: Packed,
    /// The weight in blocks of [`TOKENS`] rows, for the backward pass; none where no gradient is wanted.
    backward: Vec<Packed>,
}

impl Head {
    pub(crate) fn new(
        config: &ModelConfig,
        options: LoadOptions,
        norm: Parameter,
        own: Option<Vec<f32>>,
        embedding: &[f32],
    ) -> Result<Self> {
        let shape = [config.vocab_size, config.hidden_size];
        let tied = own.is_none();
        let values = own.as_deref().unwrap_or(embedding);
        let weight = View::new(values, shape[0], shape[1]);
        let forward = Packed::new(weight.transposed(), options.precision);
        let packed = |block| Packed::new(block, options.precision);
        let backward = match options.trained {
            Trained::Nothing => Vec::new(),
            Trained::Lora | Trained::All => blocks(values, shape[1]).map(packed).collect(),
        };
        let own = own
            .filter(|_| options.trained == Trained::All)
            .map(|w| Parameter::new("lm_head.weight", shape.to_vec(), w))
            .transpose()?;
        Ok(Self { norm, own, tied, forward, backward })
    }

    /// Rows of the weight, `[tokens, d_model]`.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Buffer {
        let d = self.forward.rows();
        let mut rows = Buffer::any(tokens.len() * d);
        for (row, &token) in rows.chunks_exact_mut(d).zip(tokens) {
            self.forward.column(token as usize, row);
        }
        rows
    }

    pub(crate) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        std::iter::once(&mut self.norm).chain(&mut self.own)
    }

    pub(crate) fn refresh(&mut self, embedding: &[f32]) {
        let values = self.own.as_ref().map_or(embedding, |w| &w.value);
        let weight = View::new(values, self.forward.columns(), self.forward.rows());
        self.forward.fill(weight.transposed());
        for (packed, block) in self.backward.iter_mut().zip(blocks(values, self.forward.rows())) {
            packed.fill(block);
        }
    }

    /// `d_logits · W`: `[rows, vocabulary]` to `[rows, d_model]`.
    fn logits_backward(&self, d_logits: &[f32], rows: usize) -> Buffer {
        assert!(!self.backward.is_empty(), "gradients need a model that is trained");
        let (d, vocabulary) = (self.forward.rows(), self.forward.columns());
        let mut d_normed = Buffer::zeros(rows * d);
        let mut product = Buffer::any(rows * d);
        for (block, start) in self.backward.iter().zip((0..).step_by(TOKENS)) {
            let d_logits = View::strided(&d_logits[start..], rows, block.rows(), vocabulary);
            matmul(d_logits, block, &mut product, d, Into::Set);
            d_normed.par_chunks_mut(d).zip(product.par_chunks(d)).for_each(|(sum, x)| simd::add(sum, x));
        }
        d_normed
    }

    pub(crate) fn bytes(&self) -> usize {
        self.forward.bytes() + self.backward.iter().map(Packed::bytes).sum::<usize>()
    }
}

impl Llama {
    /// Logits `[rows, vocabulary]` of chosen rows of `hidden` (`[T, d_model]`).
    pub fn logits(&self, hidden: &[f32], rows: &[usize]) -> Vec<f32> {
        let mut logits = Vec::new();
        self.append_logits(hidden, rows, &mut logits);
        logits
    }

    /// Appends to `logits` those of chosen rows of `hidden`.
    pub(crate) fn append_logits(&self, hidden: &[f32], rows: &[usize], logits: &mut Vec<f32>) {
        let normed = self.normed(&gather(hidden, self.config.hidden_size, rows.iter().copied()));
        let start = logits.len();
        logits.resize(start + rows.len() * self.config.vocab_size, 0.0);
        self.unembed(&normed, &mut logits[start..]);
    }

    /// Log-probability of each target. At most a few megabytes of logits exist at a time.
    pub fn log_probs(&self, hidden: &[f32], targets: &[Target]) -> Vec<f32> {
        let (d, vocabulary) = (self.config.hidden_size, self.config.vocab_size);
        let mut out = vec![0.0; targets.len()];
        let mut logits = Buffer::any(ROWS.min(targets.len()) * vocabulary);
        for (targets, out) in targets.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
            let tokens: Vec<u32> = targets.iter().map(|t| t.token).collect();
            let normed = self.normed(&gather(hidden, d, targets.iter().map(|t| t.row)));
            let logits = &mut logits[..targets.len() * vocabulary];
            self.unembed(&normed, logits);
            log_probs(logits, vocabulary, &tokens, out);
        }
        out
    }

    /// Log-probability of each target, and the gradient of `Σ weight · log p` with respect to `hidden`. Gradients
    /// of the head's own parameters are accumulated where they are trained.
    pub fn log_probs_backward(&mut self, hidden: &[f32], targets: &[Target]) -> (Vec<f32>, Buffer) {
        self.weighted_log_probs_backward(hidden, targets, |_, _, targets| {
            targets.iter().map(|t| t.weight).collect()
        })
    }

    /// As [`Llama::log_probs_backward`], for an objective whose derivative depends on the log-probability itself:
    /// `derivative(i, log p)` is asked for target `i`, in order, in place of [`Target::weight`].
    pub fn log_probs_backward_of(
        &mut self,
        hidden: &[f32],
        targets: &[Target],
        mut derivative: impl FnMut(usize, f32) -> f32,
    ) -> (Vec<f32>, Buffer) {
        let vocabulary = self.config.vocab_size;
        let mut asked = 0..;
        self.weighted_log_probs_backward(hidden, targets, |logits, tokens, targets| {
            let mut found = vec![0.0; targets.len()];
            log_probs(logits, vocabulary, tokens, &mut found);
            found.into_iter().zip(&mut asked).map(|(log_prob, i)| derivative(i, log_prob)).collect()
        })
    }

    /// `weigh(logits, tokens, targets)` gives the weights of some consecutive targets.
    fn weighted_log_probs_backward(
        &mut self,
        hidden: &[f32],
        targets: &[Target],
        mut weigh: impl FnMut(&[f32], &[u32], &[Target]) -> Vec<f32>,
    ) -> (Vec<f32>, Buffer) {
        let (d, vocabulary) = (self.config.hidden_size, self.config.vocab_size);
        let epsilon = self.config.rms_norm_eps as f32;
        let train_all = self.options.trained == Trained::All;
        let mut out = vec![0.0; targets.len()];
        let mut d_hidden = Buffer::zeros(hidden.len());
        let mut logits = Buffer::any(ROWS.min(targets.len()) * vocabulary);
        for (targets, out) in targets.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
            let tokens: Vec<u32> = targets.iter().map(|t| t.token).collect();
            let x = gather(hidden, d, targets.iter().map(|t| t.row));
            let normed = self.normed(&x);
            let logits = &mut logits[..targets.len() * vocabulary];
            self.unembed(&normed, logits);
            let weights = weigh(logits, &tokens, targets);
            log_probs_backward(logits, vocabulary, &tokens, &weights, out);
            let d_normed = self.head.logits_backward(logits, targets.len());
            if train_all {
                let normed = Packed::new(View::new(&normed, targets.len(), d), self.options.precision);
                let weight = if self.head.tied { self.embedding.as_mut() } else { self.head.own.as_mut() };
                let gradient = &mut weight.expect("trained").gradient;
                let d_logits = View::new(logits, targets.len(), vocabulary);
                matmul(d_logits.transposed(), &normed, gradient, d, Into::Add);
                rms_norm_gain_backward(&x, epsilon, &d_normed, &mut self.head.norm.gradient);
            }
            let mut dx = Buffer::zeros(x.len());
            rms_norm_backward(&x, &self.head.norm.value, epsilon, &d_normed, &mut dx);
            for (dx, row) in dx.chunks_exact(d).zip(targets.iter().map(|t| t.row)) {
                d_hidden[row * d..(row + 1) * d].iter_mut().zip(dx).for_each(|(h, x)| *h += x);
            }
        }
        (out, d_hidden)
    }

    pub(crate) fn normed(&self, x: &[f32]) -> Buffer {
        let mut y = Buffer::any(x.len());
        rms_norm(x, &self.head.norm.value, self.config.rms_norm_eps as f32, &mut y);
        y
    }

    fn unembed(&self, normed: &[f32], logits: &mut [f32]) {
        let (d, vocabulary) = (self.config.hidden_size, self.config.vocab_size);
        matmul(View::new(normed, normed.len() / d, d), &self.head.forward, logits, vocabulary, Into::Set);
    }
}

fn blocks(weight: &[f32], d: usize) -> impl Iterator<Item = View<'_>> {
    weight.chunks(TOKENS * d).map(move |block| View::new(block, block.len() / d, d))
}
