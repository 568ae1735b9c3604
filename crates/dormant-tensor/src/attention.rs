//! Causal attention over ragged batches whose sequences share prefixes.
//!
//! Tokens come in *segments*. A segment attends to all tokens of its ancestors and causally to itself, so that a
//! prompt shared by many replies (or a system prompt shared by a whole batch) is computed once, forward and
//! backward, without an approximation. Whether a token's ancestors are one segment or several does not change a
//! bit of its result: scores, the sum of exponentials and the mix of values are chains in the order of the keys.
//!
//! Shapes: queries of one row are `[heads, head_dim]`; keys are kept transposed, in panels
//! `[kv_heads][panels][head_dim][PANEL]`, values row-major.

use rayon::prelude::*;

use crate::gemm::{Factors, PANEL, Tile, narrow_tile, span, tile};
use crate::shared::Shared;
use crate::simd::{exp_sum, max, vectorised};

mod backward;

pub use backward::attention_backward;

/// Rows (positions) of one tile of scores.
const ROWS: usize = 12;

/// Numbers of heads and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query` (grouped-query attention).
    pub kv: usize,
    /// Dimensions of a head; multiples of [`PANEL`] are fastest.
    pub dim: usize,
}

impl Heads {
    fn group(self) -> usize {
        self.query / self.kv
    }

    /// Floats of the key panels of `capacity` keys.
    pub fn panel_floats(self, capacity: usize) -> usize {
        self.kv * capacity.div_ceil(PANEL) * PANEL * self.dim
    }
}

/// Keys and values of one segment.
#[derive(Clone, Copy, Debug)]
pub struct KeySegment<'a> {
    /// Keys, in panels for [`KeySegment::capacity`] keys.
    pub panels: &'a [f32],
    /// Number of keys that the panels have room for.
    pub capacity: usize,
    /// Values: element `(t, h, d)` at `t * value_stride + h * head_dim + d`.
    pub values: &'a [f32],
    /// Floats between the values of successive tokens.
    pub value_stride: usize,
    /// Number of keys present.
    pub len: usize,
}

impl KeySegment<'_> {
    fn panel(&self, heads: Heads, head: usize, panel: usize) -> *const f32 {
        let panels = self.capacity.div_ceil(PANEL);
        self.panels[(head * panels + panel) * PANEL * heads.dim..][..PANEL * heads.dim].as_ptr()
    }
}

/// Consecutive query rows that belong to one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySegment {
    /// First row in the batch.
    pub row: usize,
    /// Number of rows.
    pub len: usize,
    /// Key segments that the rows attend to, oldest ancestor first, their own last. The rows are the last `len`
    /// keys of their own segment.
    pub chain: Vec<usize>,
}

/// Copies the keys of `rows` (`[rows, stride]`, starting at the first key head) to positions `at..` of `panels`.
pub fn store_keys(heads: Heads, rows: &[f32], stride: usize, panels: &mut [f32], capacity: usize, at: usize) {
    let size = capacity.div_ceil(PANEL) * PANEL * heads.dim;
    for (i, row) in rows.chunks(stride).enumerate() {
        let (panel, lane) = ((at + i) / PANEL, (at + i) % PANEL);
        for head in 0..heads.kv {
            let target = &mut panels[head * size + panel * PANEL * heads.dim..][..PANEL * heads.dim];
            for (d, x) in row[head * heads.dim..(head + 1) * heads.dim].iter().enumerate() {
                target[d * PANEL + lane] = *x;
            }
        }
    }
}

/// `out[row, head] = Σ softmax(q · k / √head_dim) v`, for the rows of all query segments.
///
/// `q`: rows of `q_stride` floats that start with the query heads; `out`: `[rows, heads.query * head_dim]`.
pub fn attention(
    heads: Heads,
    q: &[f32],
    q_stride: usize,
    keys: &[KeySegment<'_>],
    queries: &[QuerySegment],
    out: &mut [f32],
) {
    let width = heads.query * heads.dim;
    let shared = Shared::new(out);
    check(heads, q, q_stride, keys, queries, out.len() / width);
    let tasks: Vec<(usize, usize)> =
        (0..queries.len()).flat_map(|s| (0..heads.kv).map(move |h| (s, h))).collect();
    tasks.par_iter().with_min_len(tasks.len().div_ceil(64)).for_each_init(Vec::new, |scores, &(s, kv)| {
        for block in Block::of(heads, &queries[s], keys, kv) {
            scores.resize(ROWS * block.score_stride(), 0.0);
            block.probabilities(heads, q, q_stride, keys, scores);
            // SAFETY: `check` bounds the rows; the rows and heads of a block belong to this task alone.
            unsafe { block.mix_values(heads, keys, scores, shared.get(), width) };
        }
    });
}

fn check(
    heads: Heads,
    q: &[f32],
    q_stride: usize,
    keys: &[KeySegment<'_>],
    queries: &[QuerySegment],
    out_rows: usize,
) {
    assert!(heads.query.is_multiple_of(heads.kv), "key heads do not divide the query heads");
    for key in keys {
        assert!(
            key.len <= key.capacity && key.panels.len() >= heads.panel_floats(key.capacity),
            "short panels"
        );
        let end = span(key.len, key.value_stride, heads.kv * heads.dim);
        assert!(end.is_some_and(|end| key.values.len() >= end), "short values");
    }
    assert!(q_stride >= heads.query * heads.dim, "rows without all query heads");
    let queried = out_rows.checked_mul(q_stride);
    assert!(queried.is_some_and(|queried| queried <= q.len()), "short queries");
    for query in queries {
        let own = query.chain.last().expect("a chain ends with the segment itself");
        assert!(query.len <= keys[*own].len, "queries without keys");
        let end = query.row.checked_add(query.len);
        assert!(end.is_some_and(|end| end <= out_rows), "query rows out of range");
    }
}

/// Up to [`ROWS`] query rows that run through the same keys: successive positions of one head, or, for a single
/// position, the heads of one group.
struct Block<'a> {
    query: &'a QuerySegment,
    /// First row in the batch.
    row: usize,
    /// First query head.
    head: usize,
    kv: usize,
    /// Positions (if `by_position`) or heads.
    rows: usize,
    by_position: bool,
    /// Keys before the own segment.
    past: usize,
    /// Keys of the own segment that the first row sees.
    first_visible: usize,
}

impl<'a> Block<'a> {
    fn of(heads: Heads, query: &'a QuerySegment, keys: &[KeySegment<'_>], kv: usize) -> Vec<Self> {
        let first_head = kv * heads.group();
        if query.len == 1 && heads.group() <= ROWS {
            let block = Self::at(heads, query, keys, first_head, 0);
            return vec![Self { rows: heads.group(), by_position: false, ..block }];
        }
        (0..query.len)
            .step_by(ROWS)
            .flat_map(|i| {
                let all = first_head..first_head + heads.group();
                all.map(move |head| Self::at(heads, query, keys, head, i))
            })
            .collect()
    }

    /// Positions of one head, from position `i` of the segment.
    fn at(heads: Heads, query: &'a QuerySegment, keys: &[KeySegment<'_>], head: usize, i: usize) -> Self {
        let (own, ancestors) = query.chain.split_last().expect("a chain ends with the segment itself");
        Self {
            query,
            row: query.row + i,
            head,
            kv: head / heads.group(),
            rows: ROWS.min(query.len - i),
            by_position: true,
            past: ancestors.iter().map(|&s| keys[s].len).sum(),
            first_visible: keys[*own].len - query.len + i + 1,
        }
    }

    /// Distance between the rows of scores: room for whole panels after the last key.
    fn score_stride(&self) -> usize {
        (self.past + self.own_keys()).next_multiple_of(PANEL) + PANEL
    }

    /// Keys that row `i` sees.
    fn visible(&self, i: usize) -> usize {
        self.past + self.first_visible + if self.by_position { i } else { 0 }
    }

    /// Distance between rows in a buffer whose rows are `stride` apart.
    fn row_step(&self, heads: Heads, stride: usize) -> usize {
        if self.by_position { stride } else { heads.dim }
    }

    /// Offset of the first row in a buffer whose rows are `stride` apart.
    fn offset(&self, heads: Heads, stride: usize) -> usize {
        self.row * stride + self.head * heads.dim
    }

    /// Own keys that the last row sees.
    fn own_keys(&self) -> usize {
        self.first_visible + if self.by_position { self.rows - 1 } else { 0 }
    }

    /// The key segments in order, each with the number of keys to use and the column of its first score.
    fn spans(&self, keys: &[KeySegment<'_>]) -> Vec<(usize, usize, usize)> {
        let (own, ancestors) = self.query.chain.split_last().expect("a chain ends with the segment itself");
        let mut column = 0;
        let mut spans = Vec::with_capacity(self.query.chain.len());
        for &segment in ancestors {
            spans.push((segment, keys[segment].len, column));
            column += keys[segment].len;
        }
        spans.push((*own, self.own_keys(), column));
        spans
    }

    /// Fills `scores`, `[rows, score_stride]`, with softmax(q · k / √d), zero where a row may not look.
    fn probabilities(
        &self,
        heads: Heads,
        q: &[f32],
        q_stride: usize,
        keys: &[KeySegment<'_>],
        scores: &mut [f32],
    ) {
        let stride = self.score_stride();
        assert!(scores.len() >= self.rows * stride, "short scores");
        let queries = &q[self.offset(heads, q_stride)..];
        for (segment, count, column) in self.spans(keys) {
            for panel in 0..count.div_ceil(PANEL) {
                // SAFETY: `check` bounds the queries; the panel holds head_dim × PANEL floats; scores have room
                // for PANEL columns after the last key.
                unsafe {
                    let t = Tile {
                        width: PANEL,
                        product: Factors {
                            depth: heads.dim,
                            a: queries.as_ptr(),
                            a_row: self.row_step(heads, q_stride),
                            a_column: 1,
                            b: keys[segment].panel(heads, self.kv, panel),
                            b_row: PANEL,
                        },
                        then: None,
                        c: scores.as_mut_ptr().add(column + panel * PANEL),
                        c_row: stride,
                        onto: None,
                    };
                    tile(self.rows, t);
                }
            }
        }
        let scale = 1.0 / (heads.dim as f32).sqrt();
        for (i, row) in scores.chunks_exact_mut(stride).take(self.rows).enumerate() {
            softmax(row, self.visible(i), scale);
        }
    }

    /// # Safety
    /// `out` holds the block's rows, and nobody else touches its heads there.
    unsafe fn mix_values(
        &self,
        heads: Heads,
        keys: &[KeySegment<'_>],
        scores: &[f32],
        out: *mut f32,
        width: usize,
    ) {
        for (index, (segment, count, column)) in self.spans(keys).into_iter().enumerate() {
            for part in (0..heads.dim).step_by(PANEL) {
                // SAFETY: the caller's contract; `check` bounds the values.
                unsafe {
                    let c = out.add(self.offset(heads, width) + part);
                    let t = Tile {
                        width: PANEL.min(heads.dim - part),
                        product: Factors {
                            depth: count,
                            a: scores.as_ptr().add(column),
                            a_row: self.score_stride(),
                            a_column: 1,
                            b: keys[segment].values.as_ptr().add(self.kv * heads.dim + part),
                            b_row: keys[segment].value_stride,
                        },
                        then: None,
                        c,
                        c_row: self.row_step(heads, width),
                        onto: (index > 0).then_some(c.cast_const()),
                    };
                    narrow_tile(self.rows, t);
                }
            }
        }
    }
}

vectorised! {
    fn softmax(row: &mut [f32], visible: usize, scale: f32) {
        let (seen, hidden) = row.split_at_mut(visible);
        for x in seen.iter_mut() {
            *x *= scale;
        }
        let shift = max(seen);
        let inverse = 1.0 / exp_sum(seen, shift);
        for x in seen.iter_mut() {
            *x *= inverse;
        }
        hidden.fill(0.0);
    }
}

#[cfg(test)]
mod tests;
