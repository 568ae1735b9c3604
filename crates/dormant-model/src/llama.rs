//! The Llama architecture (Touvron et al. 2023; grouped-query attention as in Llama 2), forward and backward.
//!
//! Names and layouts are those of Hugging Face's `modeling_llama.py`. Shapes: `T` rows (tokens) of a
//! [`Batch`], `d_model`, `d_ff`. Activations that the backward pass needs are stored; norms and the gated
//! activation are computed again.

use dormant_tensor::attention::{Heads, KeySegment, QuerySegment, attention, attention_backward, store_keys};
use dormant_tensor::gemm::Into;
use dormant_tensor::norm::{rms_norm, rms_norm_backward, rms_norm_gain_backward};
use dormant_tensor::rope::{RopeTable, Turn};
use dormant_tensor::swiglu::{GateUp, swiglu, swiglu_backward};
use dormant_tensor::{Buffer, Precision};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::head::Head;
use crate::linear::{Linear, PartWeight, Trained};
use crate::lora::LoraConfig;
use crate::parameter::{Parameter, scale_and_clip};

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

/// One block: attention and feed-forward, each behind a norm and added to the residual stream.
#[derive(Debug)]
pub(crate) struct Layer {
    input_norm: Parameter,
    pub(crate) qkv: Linear,
    pub(crate) o_proj: Linear,
    post_norm: Parameter,
    pub(crate) gate_up: Linear,
    pub(crate) down_proj: Linear,
}

/// What the backward pass of one block needs.
#[derive(Debug)]
struct LayerActivations {
    /// Residual stream before the block, `[T, d_model]` (`hook_resid_pre`).
    input: Buffer,
    /// Rotated queries and keys, and values.
    qkv: Buffer,
    /// Mixed values, `[T, heads * head_dim]`.
    attention: Buffer,
    /// Residual stream between attention and feed-forward (`hook_resid_mid`).
    middle: Buffer,
    gate_up: GateUp,
    /// Hidden values of the adapters of the four fused layers.
    lora: [Buffer; 4],
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
        let embedding = (!head.embeds()).then_some(embedding);
        let layers = (0..config.num_hidden_layers)
            .into_par_iter()
            .with_max_len(1)
            .map(|index| Layer::new(&config, options, index, &tensor))
            // All of them: which error of several is reported must not depend on threads.
            .collect::<Vec<_>>();
        let layers = layers.into_iter().collect::<Result<_>>()?;
        let rope =
            RopeTable::new(&config.rope_frequencies(), config.max_position_embeddings.min(MAX_POSITIONS));
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
        let mut layers = Vec::with_capacity(self.layers.len());
        let keep = |layer: LayerActivations| match self.options.saving {
            Saving::Nothing => Kept::Activations(Box::new(layer)),
            Saving::Activations | Saving::Weights => Kept::Input(layer.input),
        };
        let hidden = self.run(batch, |layer| layers.push(keep(layer)))?;
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

    fn run(&self, batch: &Batch, mut keep: impl FnMut(LayerActivations)) -> Result<Buffer> {
        batch.check(self.config.vocab_size, self.max_positions())?;
        let (positions, queries) = (batch.positions(), query_segments(batch));
        let mut x = self.embed(&batch.tokens);
        for index in 0..self.layers.len() {
            let (output, layer) = self.block_of_batch(index, x, &positions, &queries);
            keep(layer);
            x = output;
        }
        Ok(x)
    }

    /// One block, where all keys are in the batch.
    fn block_of_batch(
        &self,
        index: usize,
        x: Buffer,
        positions: &[usize],
        queries: &[QuerySegment],
    ) -> (Buffer, LayerActivations) {
        let heads = self.heads();
        self.block(index, x, positions, |qkv, out| {
            let panels = key_panels(heads, qkv, queries);
            let keys = key_segments(heads, qkv, queries, &panels);
            attention(heads, qkv, qkv_width(heads), &keys, queries, out);
        })
    }

    /// One block. `attend(qkv, out)` mixes the values; it decides where keys come from.
    pub(crate) fn block_output(
        &self,
        index: usize,
        x: Buffer,
        positions: &[usize],
        attend: impl FnOnce(&[f32], &mut [f32]),
    ) -> Buffer {
        self.block(index, x, positions, attend).0
    }

    fn block(
        &self,
        index: usize,
        input: Buffer,
        positions: &[usize],
        attend: impl FnOnce(&[f32], &mut [f32]),
    ) -> (Buffer, LayerActivations) {
        let (layer, heads, rows) = (&self.layers[index], self.heads(), positions.len());
        let normed = self.norm(&input, &layer.input_norm);
        let mut qkv = Buffer::any(rows * layer.qkv.output);
        let lora_qkv = layer.qkv.forward(&normed, &mut qkv, Into::Set);
        self.rope.rotate(&mut qkv, layer.qkv.output, heads.query + heads.kv, positions, Turn::Forward);
        let mut attention = Buffer::any(rows * layer.o_proj.input);
        attend(&qkv, &mut attention);
        let mut middle = Buffer::any(input.len());
        let lora_o = layer.o_proj.forward(&attention, &mut middle, Into::Onto(&input));
        let normed = self.norm(&middle, &layer.post_norm);
        let mut gate_up = Buffer::any(rows * layer.gate_up.output);
        let lora_gate_up = layer.gate_up.forward(&normed, &mut gate_up, Into::Set);
        let mut activated = Buffer::any(rows * layer.down_proj.input);
        let gate_up = swiglu(gate_up, &mut activated, layer.down_proj.input, self.options.precision);
        let mut output = Buffer::any(middle.len());
        let lora_down = layer.down_proj.forward(&activated, &mut output, Into::Onto(&middle));
        let lora = [lora_qkv, lora_o, lora_gate_up, lora_down];
        (output, LayerActivations { input, qkv, attention, middle, gate_up, lora })
    }

    fn norm(&self, x: &[f32], gain: &Parameter) -> Buffer {
        let mut y = Buffer::any(x.len());
        rms_norm(x, &gain.value, self.config.rms_norm_eps as f32, &mut y);
        y
    }

    /// Accumulates the gradients of the trained parameters, given the gradient `d_hidden` with respect to
    /// [`Activations::hidden`]. Returns the gradient with respect to the input embeddings, `[T, d_model]`, if
    /// `inputs` asks for it or the embedding is trained.
    pub fn backward(&mut self, activations: Activations, d_hidden: Buffer, inputs: Inputs) -> Option<Buffer> {
        let train_all = self.options.trained == Trained::All;
        let to_inputs = train_all || inputs == Inputs::Wanted;
        let lowest = if to_inputs { 0 } else { self.lowest_trained().unwrap_or(self.layers.len()) };
        let mut dx = d_hidden;
        let Activations { positions, queries, tokens, mut layers, .. } = activations;
        for index in (lowest..self.layers.len()).rev() {
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

    /// Replaces `dx`, the gradient after the block, by the one before it (if `below`).
    fn block_backward(
        &mut self,
        index: usize,
        a: LayerActivations,
        positions: &[usize],
        queries: &[QuerySegment],
        dx: &mut [f32],
        below: bool,
    ) {
        let heads = self.heads();
        let epsilon = self.config.rms_norm_eps as f32;
        let train_all = self.options.trained == Trained::All;
        let normed_middle = self.norm(&a.middle, &self.layers[index].post_norm);
        let normed_input = self.norm(&a.input, &self.layers[index].input_norm);
        let layer = &mut self.layers[index];
        let LayerActivations { input, qkv, attention, middle, gate_up, lora } = a;

        let mut activated = Buffer::any(positions.len() * layer.down_proj.input);
        let d_lora = layer.down_proj.input_gradient(dx, &mut activated);
        let d_gate_up = swiglu_backward(gate_up, &mut activated, layer.down_proj.input);
        layer.down_proj.accumulate(&activated, &lora[3], dx, &d_lora);
        let mut d_normed = Buffer::any(normed_middle.len());
        let d_lora = layer.gate_up.input_gradient(&d_gate_up, &mut d_normed);
        layer.gate_up.accumulate(&normed_middle, &lora[2], &d_gate_up, &d_lora);
        if train_all {
            rms_norm_gain_backward(&middle, epsilon, &d_normed, &mut layer.post_norm.gradient);
        }
        rms_norm_backward(&middle, &layer.post_norm.value, epsilon, &d_normed, dx);

        let mut d_attention = Buffer::any(attention.len());
        let d_lora = layer.o_proj.input_gradient(dx, &mut d_attention);
        layer.o_proj.accumulate(&attention, &lora[1], dx, &d_lora);
        let panels = key_panels(heads, &qkv, queries);
        let keys = key_segments(heads, &qkv, queries, &panels);
        let mut d_qkv = Buffer::any(qkv.len());
        attention_backward(heads, &qkv, &keys, queries, &d_attention, &mut d_qkv);
        let rotated = heads.query + heads.kv;
        self.rope.rotate(&mut d_qkv, layer.qkv.output, rotated, positions, Turn::Inverse);
        if !below {
            let d_lora = layer.qkv.hidden_gradient(&d_qkv);
            return layer.qkv.accumulate(&normed_input, &lora[0], &d_qkv, &d_lora);
        }
        let d_lora = layer.qkv.input_gradient(&d_qkv, &mut d_normed);
        layer.qkv.accumulate(&normed_input, &lora[0], &d_qkv, &d_lora);
        if train_all {
            rms_norm_gain_backward(&input, epsilon, &d_normed, &mut layer.input_norm.gradient);
        }
        rms_norm_backward(&input, &layer.input_norm.value, epsilon, &d_normed, dx);
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

impl Layer {
    fn new(
        config: &ModelConfig,
        options: LoadOptions,
        index: usize,
        tensor: &impl Fn(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let (d, ff, head) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (q, kv) = (config.num_attention_heads * head, config.num_key_value_heads * head);
        let prefix = format!("model.layers.{index}");
        let input_norm = norm_parameter(&format!("{prefix}.input_layernorm.weight"), d, tensor)?;
        let post_norm = norm_parameter(&format!("{prefix}.post_attention_layernorm.weight"), d, tensor)?;
        let linear = |input: usize, bias: bool, parts: &[(&str, usize)]| {
            let weights = parts.iter().map(|&(name, width)| {
                let module = format!("{prefix}.{name}");
                let weight = tensor(&format!("{module}.weight"), &[width, input])?;
                let bias = bias.then(|| tensor(&format!("{module}.bias"), &[width])).transpose()?;
                Ok(PartWeight { module, width, weight, bias })
            });
            Linear::new(input, weights.collect::<Result<_>>()?, options)
        };
        let attention = [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)];
        Ok(Self {
            input_norm,
            qkv: linear(d, config.attention_bias, &attention)?,
            o_proj: linear(q, false, &[("self_attn.o_proj", d)])?,
            post_norm,
            gate_up: linear(d, false, &[("mlp.gate_proj", ff), ("mlp.up_proj", ff)])?,
            down_proj: linear(ff, false, &[("mlp.down_proj", d)])?,
        })
    }
}

fn norm_parameter(
    name: &str,
    d: usize,
    tensor: &impl Fn(&str, &[usize]) -> Result<Vec<f32>>,
) -> Result<Parameter> {
    Parameter::new(name, vec![d], tensor(name, &[d])?)
}

fn qkv_width(heads: Heads) -> usize {
    (heads.query + 2 * heads.kv) * heads.dim
}

fn query_segments(batch: &Batch) -> Vec<QuerySegment> {
    let segment = |(i, s): (usize, &crate::batch::Segment)| QuerySegment {
        row: s.row,
        len: s.len,
        chain: batch.chain(i),
    };
    batch.segments.iter().enumerate().map(segment).collect()
}

fn key_panels(heads: Heads, qkv: &[f32], queries: &[QuerySegment]) -> Vec<Buffer> {
    let stride = qkv_width(heads);
    let panels = |query: &QuerySegment| {
        let mut panels = Buffer::zeros(heads.panel_floats(query.len));
        let start = query.row * stride + heads.query * heads.dim;
        let rows = &qkv[start..(query.row + query.len) * stride];
        store_keys(heads, rows, stride, &mut panels, query.len, 0);
        panels
    };
    queries.par_iter().map(panels).collect()
}

fn key_segments<'a>(
    heads: Heads,
    qkv: &'a [f32],
    queries: &[QuerySegment],
    panels: &'a [Buffer],
) -> Vec<KeySegment<'a>> {
    let stride = qkv_width(heads);
    let segment = |(query, panels): (&QuerySegment, &'a Buffer)| KeySegment {
        panels,
        capacity: query.len,
        values: &qkv[query.row * stride + (heads.query + heads.kv) * heads.dim..],
        value_stride: stride,
        len: query.len,
    };
    queries.iter().zip(panels).map(segment).collect()
}

/// Rows of `x`, `[.., d]`.
pub(crate) fn gather(x: &[f32], d: usize, rows: impl ExactSizeIterator<Item = usize>) -> Buffer {
    let mut out = Buffer::any(rows.len() * d);
    for (out, row) in out.chunks_exact_mut(d).zip(rows) {
        out.copy_from_slice(&x[row * d..(row + 1) * d]);
    }
    out
}
