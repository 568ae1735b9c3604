//! Gradients of [`attention`](super::attention).

use rayon::prelude::*;

use super::{Block, Heads, KeySegment, QuerySegment, ROWS, Scratch, check, store_keys};
use crate::arena::Buffer;
use crate::gemm::{PANEL, Tile, narrow_tile, tile};
use crate::shared::Shared;
use crate::simd::{dot, vectorised};

/// Gradients of [`attention`](super::attention): `d_out` as `out`; `d_qkv` has the layout of `qkv` (rows of `stride` floats: query
/// heads, key heads, value heads) and is overwritten. All segments lie in the batch itself: key segment `i` holds
/// the keys of `segments[i]`, whose rows are in `qkv`.
pub fn attention_backward(
    heads: Heads,
    qkv: &[f32],
    keys: &[KeySegment<'_>],
    segments: &[QuerySegment],
    d_out: &[f32],
    d_qkv: &mut [f32],
) {
    let stride = (heads.query + 2 * heads.kv) * heads.dim;
    check(heads, qkv, stride, keys, segments, d_out.len() / (heads.query * heads.dim));
    assert_eq!(qkv.len(), d_qkv.len(), "attention_backward: lengths differ");
    d_qkv.par_chunks_mut(crate::simd::CHUNK).for_each(|x| x.fill(0.0));
    let value_panels = value_panels(heads, qkv, stride, segments);
    let shared = Shared::new(d_qkv);
    (0..heads.kv).into_par_iter().with_max_len(1).for_each(|kv| {
        let mut scratch = Scratch::default();
        for segment in segments {
            for block in Block::of(heads, segment, keys, kv) {
                block.probabilities(heads, qkv, stride, keys, &mut scratch);
                // SAFETY: `check` bounds the rows; the columns of one key head and its query heads belong to
                // this task alone.
                unsafe {
                    block.backward(
                        heads,
                        qkv,
                        stride,
                        segments,
                        keys,
                        &value_panels,
                        d_out,
                        &mut scratch,
                        shared.get(),
                    );
                }
            }
        }
    });
}

impl Block<'_> {
    /// With P the probabilities in `scratch`: dV += Pᵀ dO; dP = dO Vᵀ; dS = P ∘ (dP - rowsum(P ∘ dP)) / √d;
    /// dQ = dS K; dK += dSᵀ Q.
    ///
    /// # Safety
    /// Nobody else touches the columns of this key head and its query heads in `d_qkv`.
    unsafe fn backward(
        &self,
        heads: Heads,
        qkv: &[f32],
        stride: usize,
        segments: &[QuerySegment],
        keys: &[KeySegment<'_>],
        value_panels: &[Buffer],
        d_out: &[f32],
        scratch: &mut Scratch,
        d_qkv: *mut f32,
    ) {
        let width = heads.query * heads.dim;
        let d_out = d_out[self.offset(heads, width)..].as_ptr();
        let (d_out_step, q_step) = (self.row_step(heads, width), self.row_step(heads, stride));
        let spans = self.spans(keys);
        scratch.d_scores.resize(ROWS * scratch.stride, 0.0);
        for &(segment, count, column) in &spans {
            let panels = keys[segment].capacity.div_ceil(PANEL);
            for panel in 0..count.div_ceil(PANEL) {
                // SAFETY: as in `probabilities`.
                unsafe {
                    let t = Tile {
                        depth: heads.dim,
                        a: d_out,
                        a_row: d_out_step,
                        a_column: 1,
                        b: value_panels[segment][(self.kv * panels + panel) * PANEL * heads.dim..].as_ptr(),
                        b_row: PANEL,
                        c: scratch.d_scores.as_mut_ptr().add(column + panel * PANEL),
                        c_row: scratch.stride,
                        add: false,
                    };
                    tile(self.rows, t);
                }
            }
        }
        let scale = 1.0 / (heads.dim as f32).sqrt();
        for i in 0..self.rows {
            let range = i * scratch.stride..(i + 1) * scratch.stride;
            softmax_backward(
                &scratch.scores[range.clone()],
                &mut scratch.d_scores[range],
                self.visible(i),
                scale,
            );
        }
        let queries = qkv[self.offset(heads, stride)..].as_ptr();
        for (index, &(segment, count, column)) in spans.iter().enumerate() {
            let first = segments[segment].row * stride;
            let key = first + (heads.query + self.kv) * heads.dim;
            let value = key + heads.kv * heads.dim;
            for part in (0..heads.dim).step_by(PANEL) {
                let width = PANEL.min(heads.dim - part);
                // SAFETY: rows of `segment` lie in `qkv` and `d_qkv`; the caller keeps others out.
                unsafe {
                    let d_query = Tile {
                        depth: count,
                        a: scratch.d_scores.as_ptr().add(column),
                        a_row: scratch.stride,
                        a_column: 1,
                        b: qkv.as_ptr().add(key + part),
                        b_row: stride,
                        c: d_qkv.add(self.offset(heads, stride) + part),
                        c_row: q_step,
                        add: index > 0,
                    };
                    narrow_tile(self.rows, width, d_query);
                    for t in (0..count).step_by(ROWS) {
                        let rows = ROWS.min(count - t);
                        let d_key = Tile {
                            depth: self.rows,
                            a: scratch.d_scores.as_ptr().add(column + t),
                            a_row: 1,
                            a_column: scratch.stride,
                            b: queries.add(part),
                            b_row: q_step,
                            c: d_qkv.add(key + t * stride + part),
                            c_row: stride,
                            add: true,
                        };
                        narrow_tile(rows, width, d_key);
                        let d_value = Tile {
                            a: scratch.scores.as_ptr().add(column + t),
                            b: d_out.add(part),
                            b_row: d_out_step,
                            c: d_qkv.add(value + t * stride + part),
                            ..d_key
                        };
                        narrow_tile(rows, width, d_value);
                    }
                }
            }
        }
    }
}

fn value_panels(heads: Heads, qkv: &[f32], stride: usize, segments: &[QuerySegment]) -> Vec<Buffer> {
    let offset = (heads.query + heads.kv) * heads.dim;
    segments
        .par_iter()
        .map(|segment| {
            let mut panels = Buffer::zeros(heads.panel_floats(segment.len));
            if segment.len > 0 {
                let rows = &qkv[segment.row * stride + offset..];
                let rows = &rows[..(segment.len - 1) * stride + heads.kv * heads.dim];
                store_keys(heads, rows, stride, &mut panels, segment.len, 0);
            }
            panels
        })
        .collect()
}

vectorised! {
    fn softmax_backward(p: &[f32], dp: &mut [f32], visible: usize, scale: f32) {
        let (seen, hidden) = dp.split_at_mut(visible);
        let mean = dot(&p[..visible], seen);
        for (d, p) in seen.iter_mut().zip(p) {
            *d = p * (*d - mean) * scale;
        }
        hidden.fill(0.0);
    }
}
