//! The Llama architecture (Touvron et al. 2023; grouped-query attention as in Llama 2), forward and backward.
//!
//! Names and layouts are those of Hugging Face's `modeling_llama.py`. Shapes: `T` rows (tokens) of a
//! [`Batch`], `d_model`, `d_ff`. Activations that the backward pass needs are stored; norms and the gated
//! activation are computed again.

use dormant_tensor::attention::{Heads, QuerySegment};
use dormant_tensor::rope::RopeTable;
use dormant_tensor::{Buffer, Precision, arena};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::head::Head;
use crate::linear::{Linear, Trained};
use crate::lora::LoraConfig;
use crate::parameter::{Parameter, scale_and_clip};

use block::{Layer, LayerActivations, norm_parameter, query_segments};

mod block;
mod consistency;
pub mod latent;
pub mod mismatch;
mod residual;

/// How a model is held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Number format of the products with weights.
    pub precision: Precision,
    /// What is trained.
    pub trained: Trained,
    /// What is computed again rather than kept.
    pub saving: Saving,
}

impl LoadOptions {
    /// Everything kept.
    pub fn new(precision: Precision, trained: Trained) -> Self {
        Self { precision, trained, saving: Saving::Nothing }
    }

    /// Number format of what is kept for a backward pass. Without one, rounding would be for nothing.
    fn kept(self) -> Precision {
        if self.trained == Trained::Nothing { Precision::F32 } else { self.precision }
    }
}

/// Ways to train in less memory, for more time. No bit of a result depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// Everything is kept.
    Nothing,
    /// The backward pass computes the activations of each block again from the block's input.
    Activations,
    /// Also, frozen weights are stored for the forward pass only, and turned around for the backward pass.
    Weights,
}

/// A decoder of the Llama family.
#[derive(Debug)]
pub struct Llama {
    /// Dimensions and constants.
    pub config: ModelConfig,
    /// How it is held in memory.
    pub options: LoadOptions,
    /// `[vocabulary, d_model]`; none where the head has it: where the two are one and frozen.
    pub(crate) embedding: Option<Parameter>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) head: Head,
    rope: RopeTable,
}

/// What is kept of a block.
#[derive(Debug)]
enum Kept {
    Activations(Box<LayerActivations>),
    /// Residual stream before the block.
    Input(Buffer),
}

/// A forward pass, kept for its backward pass.
#[derive(Debug)]
pub struct Activations {
    positions: Vec<usize>,
    queries: Vec<QuerySegment>,
    tokens: Vec<u32>,
    layers: Vec<Kept>,
    /// Residual stream after the last block, `[T, d_model]`.
    pub hidden: Buffer,
}

impl Llama {
    /// Builds the model from its tensors: `tensor(name, shape)` gives the values of a tensor by its Hugging Face
    /// name.
    ///
    /// # Errors
    /// Those of `tensor`.
    pub fn new(
        config: ModelConfig,
        options: LoadOptions,
        tensor: impl Fn(&str, &[usize]) -> Result<Vec<f32>> + Sync,
    ) -> Result<Self> {
        let (d, vocabulary) = (config.hidden_size, config.vocab_size);
        let name = "model.embed_tokens.weight";
        let embedding = Parameter::new(name, vec![vocabulary, d], tensor(name, &[vocabulary, d])?)?;
        let norm = norm_parameter("model.norm.weight", d, &tensor)?;
        let own =
            (!config.tie_word_embeddings).then(|| tensor("lm_head.weight", &[vocabulary, d])).transpose()?;
        let head = Head::new(&config, options, norm, own, &embedding.value)?;
        // Before the blocks are there: the other copy is gone when memory is needed.
        let has_copy = config.tie_word_embeddings && options.trained != Trained::All;
        let embedding = (!has_copy).then_some(embedding);
        let layers = (0..config.num_hidden_layers)
            .into_par_iter()
            .with_max_len(1)
            .map(|index| Layer::new(&config, options, index, &tensor))
            // All of them: which error of several is reported must not depend on threads.
            .collect::<Vec<_>>();
        let layers = layers.into_iter().collect::<Result<_>>()?;
        let rope =
            RopeTable::new(&config.rope_frequencies(), config.max_position_embeddings.min(MAX_POSITIONS));
        arena::release();
        Ok(Self { config, options, embedding, layers, head, rope })
    }

    /// Adds fresh adapters.
    ///
    /// # Errors
    /// If a shape is impossible.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        self.linears_mut().try_for_each(|linear| linear.add_lora(config, seed))
    }

    /// Number of positions that a sequence may have.
    pub fn max_positions(&self) -> usize {
        self.rope.positions()
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads {
            query: self.config.num_attention_heads,
            kv: self.config.num_key_value_heads,
            dim: self.config.head_dim,
        }
    }

    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|l| [&mut l.qkv, &mut l.o_proj, &mut l.gate_up, &mut l.down_proj])
    }

    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|l| [&l.qkv, &l.o_proj, &l.gate_up, &l.down_proj])
    }

    /// The trained parameters, in an order that never changes.
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let all = self.options.trained == Trained::All;
        let mut parameters = Vec::new();
        if all {
            parameters.extend(&mut self.embedding);
        }
        for layer in &mut self.layers {
            if all {
                parameters.extend([&mut layer.input_norm, &mut layer.post_norm]);
            }
            for linear in [&mut layer.qkv, &mut layer.o_proj, &mut layer.gate_up, &mut layer.down_proj] {
                parameters.extend(linear.parameters_mut());
            }
        }
        if all {
            parameters.extend(self.head.parameters_mut());
        }
        parameters
    }

    /// Brings the packed weights up to date after the parameters have changed.
    pub fn refresh(&mut self) {
        self.linears_mut().for_each(Linear::refresh);
        if let Some(embedding) = self.embedding.as_ref().filter(|_| self.options.trained == Trained::All) {
            self.head.refresh(&embedding.value);
        }
    }

    /// Bytes of the packed weights and the embedding.
    pub fn weight_bytes(&self) -> usize {
        let embedding = self.embedding.as_ref().map_or(0, |embedding| embedding.value.len() * 4);
        self.linears().map(Linear::bytes).sum::<usize>() + self.head.bytes() + embedding
    }

    /// Rows of the embedding, `[T, d_model]`. In bf16, those of a frozen embedding that is the head as well are rounded.
    pub fn embed(&self, tokens: &[u32]) -> Buffer {
        let d = self.config.hidden_size;
        match &self.embedding {
            Some(embedding) => gather(&embedding.value, d, tokens.iter().map(|&t| t as usize)),
            None => self.head.embed(tokens),
        }
    }

    /// Runs the blocks and keeps what [`Llama::backward`] needs.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a sequence that is too long.
    pub fn forward(&self, batch: &Batch) -> Result<Activations> {
        self.forward_changed(batch, |_, _| {})
    }

    /// [`Llama::forward`]; `change` may write to the residual stream after each block.
    fn forward_changed(&self, batch: &Batch, change: impl Fn(usize, &mut Buffer)) -> Result<Activations> {
        let mut layers = Vec::with_capacity(self.layers.len());
        let keep = |layer: LayerActivations| match self.options.saving {
            Saving::Nothing => Kept::Activations(Box::new(layer)),
            Saving::Activations | Saving::Weights => Kept::Input(layer.input),
        };
        let hidden = self.run_changed(batch, |layer| layers.push(keep(layer)), change)?;
        Ok(Activations {
            positions: batch.positions(),
            queries: query_segments(batch),
            tokens: batch.tokens.clone(),
            layers,
            hidden,
        })
    }

    /// Runs the blocks for their result only: the residual stream after the last one, `[T, d_model]`.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    pub fn hidden(&self, batch: &Batch) -> Result<Buffer> {
        self.run(batch, drop)
    }

    fn run(&self, batch: &Batch, keep: impl FnMut(LayerActivations)) -> Result<Buffer> {
        self.run_changed(batch, keep, |_, _| {})
    }

    /// Runs the blocks; `change` may write to the residual stream after each.
    fn run_changed(
        &self,
        batch: &Batch,
        mut keep: impl FnMut(LayerActivations),
        change: impl Fn(usize, &mut Buffer),
    ) -> Result<Buffer> {
        batch.check(self.config.vocab_size, self.max_positions())?;
        let (positions, queries) = (batch.positions(), query_segments(batch));
        let mut x = self.embed(&batch.tokens);
        for index in 0..self.layers.len() {
            let (mut output, layer) = self.block_of_batch(index, x, &positions, &queries);
            keep(layer);
            change(index, &mut output);
            x = output;
        }
        Ok(x)
    }

    /// Accumulates the gradients of the trained parameters, given the gradient `d_hidden` with respect to
    /// [`Activations::hidden`]. Returns the gradient with respect to the input embeddings, `[T, d_model]`, if
    /// `inputs` asks for it or the embedding is trained.
    pub fn backward(&mut self, activations: Activations, d_hidden: Buffer, inputs: Inputs) -> Option<Buffer> {
        self.backward_seen(activations, d_hidden, inputs, |_, _| {})
    }

    /// [`Llama::backward`]; `see` is shown the gradient with respect to the residual stream after each block.
    fn backward_seen(
        &mut self,
        activations: Activations,
        d_hidden: Buffer,
        inputs: Inputs,
        mut see: impl FnMut(usize, &Buffer),
    ) -> Option<Buffer> {
        let train_all = self.options.trained == Trained::All;
        let to_inputs = train_all || inputs == Inputs::Wanted;
        let lowest = if to_inputs { 0 } else { self.lowest_trained().unwrap_or(self.layers.len()) };
        let mut dx = d_hidden;
        let Activations { positions, queries, tokens, mut layers, .. } = activations;
        for index in (lowest..self.layers.len()).rev() {
            see(index, &dx);
            let layer = match layers.pop().expect("one per block") {
                Kept::Activations(layer) => *layer,
                Kept::Input(input) => self.block_of_batch(index, input, &positions, &queries).1,
            };
            let below = index > lowest || to_inputs;
            self.block_backward(index, layer, &positions, &queries, &mut dx, below);
        }
        if let Some(embedding) = self.embedding.as_mut().filter(|_| train_all) {
            let d = self.config.hidden_size;
            for (row, &token) in dx.chunks_exact(d).zip(&tokens) {
                let gradient = &mut embedding.gradient[token as usize * d..(token as usize + 1) * d];
                gradient.iter_mut().zip(row).for_each(|(g, x)| *g += x);
            }
        }
        to_inputs.then_some(dx)
    }

    fn lowest_trained(&self) -> Option<usize> {
        let trained = |l: &Linear| l.parts.iter().any(|p| p.lora.is_some());
        self.layers
            .iter()
            .position(|l| [&l.qkv, &l.o_proj, &l.gate_up, &l.down_proj].into_iter().any(trained))
    }

    /// Multiplies all gradients by `factor`; then, if their norm exceeds `clip`, scales them to it. Returns the
    /// norm before clipping.
    pub fn scale_and_clip(&mut self, factor: f32, clip: Option<f32>) -> f32 {
        scale_and_clip(&mut self.parameters_mut(), factor, clip)
    }

    /// Sets all gradients to zero.
    pub fn clear_gradients(&mut self) {
        self.parameters_mut().into_iter().for_each(Parameter::clear_gradient);
    }
}

/// Whether the gradient with respect to the input embeddings is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// It is returned.
    Wanted,
    /// The backward pass stops at the lowest trained block.
    Unwanted,
}

/// Longest context for which rotation tables are made.
const MAX_POSITIONS: usize = 8192;

/// Rows of `x`, `[.., d]`.
pub(crate) fn gather(x: &[f32], d: usize, rows: impl ExactSizeIterator<Item = usize>) -> Buffer {
    let mut out = Buffer::any(rows.len() * d);
    for (out, row) in out.chunks_exact_mut(d).zip(rows) {
        out.copy_from_slice(&x[row * d..(row + 1) * d]);
    }
    out
}
