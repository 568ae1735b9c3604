//! One block, forward and backward.

use dormant_tensor::attention::{Heads, KeySegment, QuerySegment, attention, attention_backward, store_keys};
use dormant_tensor::gemm::Into;
use dormant_tensor::norm::{rms_norm, rms_norm_backward, rms_norm_gain_backward};
use dormant_tensor::rope::Turn;
use dormant_tensor::swiglu::{GateUp, swiglu, swiglu_backward};
use dormant_tensor::{Buffer, Precision};
use rayon::prelude::*;

use super::{Llama, LoadOptions};
use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::linear::{Linear, PartWeight, Trained};
use crate::parameter::Parameter;

/// One block: attention and feed-forward, each behind a norm and added to the residual stream.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(super) input_norm: Parameter,
    pub(crate) qkv: Linear,
    pub(crate) o_proj: Linear,
    pub(super) post_norm: Parameter,
    pub(crate) gate_up: Linear,
    pub(crate) down_proj: Linear,
}

/// What the backward pass of one block needs.
#[derive(Debug)]
pub(super) struct LayerActivations {
    /// Residual stream before the block, `[T, d_model]` (`hook_resid_pre`).
    pub(super) input: Buffer,
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

impl Llama {
    /// The first `count` blocks, where all keys are in the batch: what is kept of each, and what the last one has written.
    pub(super) fn blocks_of_batch(
        &self,
        count: usize,
        mut x: Buffer,
        positions: &[usize],
        queries: &[QuerySegment],
    ) -> (Vec<LayerActivations>, Buffer) {
        let mut layers = Vec::with_capacity(count);
        for index in 0..count {
            let (output, layer) = self.block_of_batch(index, x, positions, queries);
            layers.push(layer);
            x = output;
        }
        (layers, x)
    }

    /// One block, where all keys are in the batch.
    pub(super) fn block_of_batch(
        &self,
        index: usize,
        x: Buffer,
        positions: &[usize],
        queries: &[QuerySegment],
    ) -> (Buffer, LayerActivations) {
        let heads = self.heads();
        self.block(index, x, positions, self.options.kept(), |qkv, out| {
            let panels = key_panels(heads, qkv, queries);
            let keys = key_segments(heads, qkv, queries, &panels);
            attention(heads, qkv, qkv_width(heads), &keys, queries, out);
        })
    }

    /// One block, without what a backward pass needs. `attend(qkv, out)` mixes the values; it decides where keys come from.
    pub(crate) fn block_output(
        &self,
        index: usize,
        x: Buffer,
        positions: &[usize],
        attend: impl FnOnce(&[f32], &mut [f32]),
    ) -> Buffer {
        self.block(index, x, positions, Precision::F32, attend).0
    }

    fn block(
        &self,
        index: usize,
        input: Buffer,
        positions: &[usize],
        kept: Precision,
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
        let gate_up = swiglu(gate_up, &mut activated, layer.down_proj.input, kept);
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

    /// Replaces `dx`, the gradient after the block, by the one before it (if `below`).
    pub(super) fn block_backward(
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
}

impl Layer {
    pub(super) fn new(
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

pub(super) fn norm_parameter(
    name: &str,
    d: usize,
    tensor: &impl Fn(&str, &[usize]) -> Result<Vec<f32>>,
) -> Result<Parameter> {
    Parameter::new(name, vec![d], tensor(name, &[d])?)
}

fn qkv_width(heads: Heads) -> usize {
    (heads.query + 2 * heads.kv) * heads.dim
}

pub(super) fn query_segments(batch: &Batch) -> Vec<QuerySegment> {
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
