//! Gradients of [`attention`](super::attention).

use rayon::prelude::*;

use super::{Block, Heads, KeySegment, QuerySegment, ROWS, check, store_keys};
use crate::arena::Buffer;
use crate::gemm::{Factors, PANEL, Tile, narrow_tile, tile};
use crate::shared::Shared;
use crate::simd::{dot, vectorised};

/// Tasks per key head, whatever the number of threads: the order of a sum depends on it.
const GROUPS: usize = 8;

/// Positions of a piece of a segment, the smallest unit of a task.
const PIECE: usize = 20 * ROWS;

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
    check_keys(keys, segments);
    d_qkv.par_chunks_mut(crate::simd::CHUNK).for_each(|x| x.fill(0.0));
    let value_panels = value_panels(heads, qkv, stride, segments);
    let groups = groups(segments, keys);
    let (places, own_rows) = private_places(segments, &groups);
    let pass = Pass { heads, qkv, stride, keys, segments, value_panels, d_out, places };
    let shared = Shared::new(d_qkv);
    let tasks: Vec<(usize, &[Piece])> =
        (0..heads.kv).flat_map(|kv| groups.iter().map(move |group| (kv, group.as_slice()))).collect();
    let sums: Vec<Buffer> = tasks
        .par_iter()
        .with_max_len(1)
        .map(|&(kv, group)| {
            let mut private = Buffer::zeros(own_rows * 2 * heads.dim);
            let mut scratch = Scratch::default();
            for piece in group {
                for i in piece.positions.clone().step_by(ROWS) {
                    // SAFETY: `check` bounds the rows. The queries of a piece, and the keys of segments without a
                    // private place, belong to this group; the columns to this key head.
                    unsafe { pass.block(piece.segment, i, kv, &mut scratch, &mut private, shared.get()) };
                }
            }
            private
        })
        .collect();
    for ((kv, _), sum) in tasks.iter().zip(&sums) {
        pass.add_private(*kv, sum, d_qkv);
    }
}

/// The sums over the keys of a segment go to its own rows, of which there are as many.
fn check_keys(keys: &[KeySegment<'_>], segments: &[QuerySegment]) {
    assert_eq!(keys.len(), segments.len(), "attention_backward: not one key segment for each segment");
    for (index, (key, segment)) in keys.iter().zip(segments).enumerate() {
        assert_eq!(segment.chain.last(), Some(&index), "a chain ends with the segment itself");
        assert!(
            key.len == segment.len && key.capacity == segment.len,
            "attention_backward: keys from outside of the batch"
        );
    }
}

/// Positions of one segment that a task works on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    segment: usize,
    positions: std::ops::Range<usize>,
}

/// Cuts the work on one key head into up to [`GROUPS`] parts of about equal size.
fn groups(segments: &[QuerySegment], keys: &[KeySegment<'_>]) -> Vec<Vec<Piece>> {
    let pieces = |(segment, query): (usize, &QuerySegment)| {
        let len = query.len;
        let past: usize = query.chain.iter().map(|&s| keys[s].len).sum::<usize>() - len;
        (0..len).step_by(PIECE).map(move |first| {
            let positions = first..len.min(first + PIECE);
            let cost = positions.len() * (past + positions.end);
            (Piece { segment, positions }, cost)
        })
    };
    let pieces: Vec<(Piece, usize)> = segments.iter().enumerate().flat_map(pieces).collect();
    let share = pieces.iter().map(|(_, cost)| cost).sum::<usize>().div_ceil(GROUPS);
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for (piece, cost) in pieces {
        if room == 0 {
            groups.push(Vec::new());
            room = share;
        }
        room = room.saturating_sub(cost);
        groups.last_mut().expect("just added").push(piece);
    }
    groups
}

/// Segments whose keys several groups may look at, each with its place among the rows that every task sums apart.
fn private_places(segments: &[QuerySegment], groups: &[Vec<Piece>]) -> (Vec<Option<usize>>, usize) {
    let mut several = vec![false; segments.len()];
    for segment in segments {
        let (_, ancestors) = segment.chain.split_last().expect("a chain ends with the segment itself");
        ancestors.iter().for_each(|&ancestor| several[ancestor] = true);
    }
    let mut group_of = vec![None; segments.len()];
    for (index, piece) in groups.iter().enumerate().flat_map(|(i, group)| group.iter().map(move |p| (i, p))) {
        several[piece.segment] |= group_of[piece.segment].is_some_and(|group| group != index);
        group_of[piece.segment] = Some(index);
    }
    let mut rows = 0;
    let place = |(segment, several): (&QuerySegment, bool)| {
        several.then(|| {
            rows += segment.len;
            rows - segment.len
        })
    };
    let places = segments.iter().zip(several).map(place).collect();
    (places, rows)
}

/// What all tasks read.
struct Pass<'a> {
    heads: Heads,
    qkv: &'a [f32],
    stride: usize,
    keys: &'a [KeySegment<'a>],
    segments: &'a [QuerySegment],
    value_panels: Vec<Buffer>,
    d_out: &'a [f32],
    places: Vec<Option<usize>>,
}

/// Memory of one task. The rows of a block are those of all query heads of one key head, one head after the other.
#[derive(Default)]
struct Scratch {
    /// Probabilities, `[rows, score_stride]`.
    scores: Vec<f32>,
    /// Their gradients.
    d_scores: Vec<f32>,
    /// `[rows, head_dim]`.
    queries: Vec<f32>,
    /// `[rows, head_dim]`.
    d_out: Vec<f32>,
}

impl Pass<'_> {
    /// Up to [`ROWS`] positions of a segment from position `i`, under all query heads of a key head. With P the
    /// probabilities: dV += Pᵀ dO; dP = dO Vᵀ; dS = P ∘ (dP - rowsum(P ∘ dP)) / √d; dQ = dS K; dK += dSᵀ Q.
    ///
    /// # Safety
    /// Nobody else touches the queries of this block under these heads, or the columns of this key head in segments
    /// without a private place, in `d_qkv`.
    unsafe fn block(
        &self,
        segment: usize,
        i: usize,
        kv: usize,
        scratch: &mut Scratch,
        private: &mut [f32],
        d_qkv: *mut f32,
    ) {
        let (heads, stride) = (self.heads, self.stride);
        let first_head = kv * heads.group();
        let at = |head: usize| Block::at(heads, &self.segments[segment], self.keys, first_head + head, i);
        let block = at(0);
        let (positions, row) = (block.rows, block.score_stride());
        let rows = positions * heads.group();
        scratch.scores.resize(rows * row, 0.0);
        scratch.d_scores.resize(rows * row, 0.0);
        scratch.queries.clear();
        scratch.d_out.clear();
        let width = heads.query * heads.dim;
        for head in 0..heads.group() {
            let block = at(head);
            for p in 0..positions {
                let row = |stride| block.offset(heads, stride) + p * stride;
                scratch.queries.extend_from_slice(&self.qkv[row(stride)..][..heads.dim]);
                scratch.d_out.extend_from_slice(&self.d_out[row(width)..][..heads.dim]);
            }
            let part = head * positions * row..(head + 1) * positions * row;
            block.probabilities(heads, self.qkv, stride, self.keys, &mut scratch.scores[part.clone()]);
            self.score_gradients(&block, head * positions, scratch);
            for p in 0..positions {
                let range = part.start + p * row..part.start + (p + 1) * row;
                let scale = 1.0 / (heads.dim as f32).sqrt();
                let d_scores = &mut scratch.d_scores[range.clone()];
                softmax_backward(&scratch.scores[range], d_scores, block.visible(p), scale);
            }
            // SAFETY: the caller's contract.
            unsafe { self.query_gradients(&block, head * positions, scratch, d_qkv) };
        }
        for (segment, count, column) in block.spans(self.keys) {
            let (key, value, step) = self.sums(segment, kv, private, d_qkv);
            for t in (0..count).step_by(ROWS) {
                for part in (0..heads.dim).step_by(PANEL) {
                    // SAFETY: the scratch has `rows` rows; the sums have `count`, and are this task's.
                    unsafe {
                        let c = key.add(t * step + part);
                        let d_key = Tile {
                            width: PANEL.min(heads.dim - part),
                            product: Factors {
                                depth: rows,
                                a: scratch.d_scores.as_ptr().add(column + t),
                                a_row: 1,
                                a_column: row,
                                b: scratch.queries.as_ptr().add(part),
                                b_row: heads.dim,
                            },
                            then: None,
                            c,
                            c_row: step,
                            onto: Some(c),
                        };
                        narrow_tile(ROWS.min(count - t), d_key);
                        let product = Factors {
                            a: scratch.scores.as_ptr().add(column + t),
                            b: scratch.d_out.as_ptr().add(part),
                            ..d_key.product
                        };
                        let c = value.add(t * step + part);
                        let d_value = Tile { product, c, onto: Some(c), ..d_key };
                        narrow_tile(ROWS.min(count - t), d_value);
                    }
                }
            }
        }
    }

    /// dP of the rows of one head, which begin at row `first` of the scratch.
    fn score_gradients(&self, block: &Block<'_>, first: usize, scratch: &mut Scratch) {
        let (dim, row) = (self.heads.dim, block.score_stride());
        for (segment, count, column) in block.spans(self.keys) {
            let panels = self.keys[segment].capacity.div_ceil(PANEL);
            for panel in 0..count.div_ceil(PANEL) {
                let values = &self.value_panels[segment][(block.kv * panels + panel) * PANEL * dim..];
                // SAFETY: the scratch has these rows, with room for whole panels after the last key.
                unsafe {
                    let t = Tile {
                        width: PANEL,
                        product: Factors {
                            depth: dim,
                            a: scratch.d_out.as_ptr().add(first * dim),
                            a_row: dim,
                            a_column: 1,
                            b: values[..PANEL * dim].as_ptr(),
                            b_row: PANEL,
                        },
                        then: None,
                        c: scratch.d_scores.as_mut_ptr().add(first * row + column + panel * PANEL),
                        c_row: row,
                        onto: None,
                    };
                    tile(block.rows, t);
                }
            }
        }
    }

    /// dQ of the rows of one head.
    ///
    /// # Safety
    /// As for [`Pass::block`].
    unsafe fn query_gradients(&self, block: &Block<'_>, first: usize, scratch: &Scratch, d_qkv: *mut f32) {
        let (heads, stride, row) = (self.heads, self.stride, block.score_stride());
        for (index, (segment, count, column)) in block.spans(self.keys).into_iter().enumerate() {
            let key = self.segments[segment].row * stride + (heads.query + block.kv) * heads.dim;
            for part in (0..heads.dim).step_by(PANEL) {
                // SAFETY: the keys of the segment lie in `qkv`; the caller's contract for `d_qkv`.
                unsafe {
                    let c = d_qkv.add(block.offset(heads, stride) + part);
                    let t = Tile {
                        width: PANEL.min(heads.dim - part),
                        product: Factors {
                            depth: count,
                            a: scratch.d_scores.as_ptr().add(first * row + column),
                            a_row: row,
                            a_column: 1,
                            b: self.qkv.as_ptr().add(key + part),
                            b_row: stride,
                        },
                        then: None,
                        c,
                        c_row: stride,
                        onto: (index > 0).then_some(c.cast_const()),
                    };
                    narrow_tile(block.rows, t);
                }
            }
        }
    }

    /// Where a task sums dK and dV of a segment, and the distance between rows there.
    fn sums(
        &self,
        segment: usize,
        kv: usize,
        private: &mut [f32],
        d_qkv: *mut f32,
    ) -> (*mut f32, *mut f32, usize) {
        let dim = self.heads.dim;
        if let Some(place) = self.places[segment] {
            let rows = private[place * 2 * dim..].as_mut_ptr();
            return (rows, rows.wrapping_add(dim), 2 * dim);
        }
        let key = self.segments[segment].row * self.stride + (self.heads.query + kv) * dim;
        let key = d_qkv.wrapping_add(key);
        (key, key.wrapping_add(self.heads.kv * dim), self.stride)
    }

    /// Adds what a task has summed apart.
    fn add_private(&self, kv: usize, sum: &[f32], d_qkv: &mut [f32]) {
        let dim = self.heads.dim;
        for (segment, place) in self.segments.iter().zip(&self.places) {
            let Some(place) = *place else { continue };
            let rows = sum[place * 2 * dim..].chunks_exact(2 * dim).take(segment.len);
            for (p, row) in rows.enumerate() {
                let key = (segment.row + p) * self.stride + (self.heads.query + kv) * dim;
                let (d_key, d_value) = row.split_at(dim);
                add(&mut d_qkv[key..key + dim], d_key);
                let value = key + self.heads.kv * dim;
                add(&mut d_qkv[value..value + dim], d_value);
            }
        }
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
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
