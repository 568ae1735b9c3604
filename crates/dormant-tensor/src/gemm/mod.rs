//! Matrix products `C = A · B` and `C += A · B`.
//!
//! `B` is packed once into panels of [`PANEL`] columns (a frozen weight is packed when the model is loaded) and
//! `A` is read in place, through any pair of strides. A tile of `C` stays in registers over the whole inner
//! dimension: each element is one chain of fused multiply-adds, in order. That is what makes the result
//! independent of threads, of the other rows of the batch, and (in f32) of the instruction set.

mod kernel;
mod pack;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use rayon::prelude::*;

pub(crate) use kernel::{Factors, Tile, narrow_tile, tile};
pub(crate) use pack::round_to_bf16;
pub use pack::{Packed, Precision};

use crate::arena::Buffer;
use crate::shared::Shared;

/// Columns of a packed panel.
pub const PANEL: usize = 32;

/// A matrix in place: element `(i, p)` is `data[i * row_stride + p * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix `[rows, columns]` with contiguous rows.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    ///
    /// # Panics
    /// If `data` is too short.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = span(rows, row_stride, columns);
        assert!(
            needed.is_some_and(|needed| data.len() >= needed),
            "view [{rows}, {columns}] with rows {row_stride} apart has too few elements, {}",
            data.len()
        );
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed matrix, without moving an element.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn at(&self, i: usize, p: usize) -> f32 {
        self.data[i * self.row_stride + p * self.column_stride]
    }
}

/// Elements from the first to the last of a matrix whose rows are `stride` apart, if they can be counted.
pub(crate) fn span(rows: usize, stride: usize, columns: usize) -> Option<usize> {
    match rows.checked_sub(1) {
        Some(before) => before.checked_mul(stride)?.checked_add(columns),
        None => Some(0),
    }
}

/// What a product is added to: each chain of multiply-adds starts from the value there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Into<'a> {
    /// Nothing; the values in `C` are overwritten.
    Set,
    /// The values already in `C`.
    Add,
    /// These values, laid out as `C`.
    Onto(&'a [f32]),
}

/// A product of small inner dimension that is added to some columns of another one: the up-projection of a LoRA.
#[derive(Clone, Copy, Debug)]
pub struct Correction<'a> {
    /// `[m, r]`.
    pub a: View<'a>,
    /// Packed from `[r, width]`, in the precision of the large product.
    pub b: &'a Packed,
    /// Column of `C` where it begins.
    pub start: usize,
}

impl Correction<'_> {
    /// Whether it covers whole panels of a matrix of `n` columns, so that tiles can take it along.
    fn is_aligned(&self, n: usize) -> bool {
        let end = self.start + self.b.columns();
        self.start.is_multiple_of(PANEL) && (end.is_multiple_of(PANEL) || end == n)
    }

    /// Its own panel at panel `panel` of `C`.
    fn panel(&self, panel: usize) -> Option<usize> {
        let own = panel.checked_sub(self.start / PANEL)?;
        (own < self.b.columns().div_ceil(PANEL)).then_some(own)
    }
}

/// `C = A · B` (or `C += A · B`): `a` is `[m, k]`, `b` packed from `[k, n]`, `c` row-major `[m, n]` with rows
/// `c_stride` apart.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul(a: View<'_>, b: &Packed, c: &mut [f32], c_stride: usize, into: Into<'_>) {
    matmul_with(a, b, &[], c, c_stride, into);
}

/// As [`matmul`]; then adds the corrections. A tile of `C` takes one along while it is in registers.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_with(
    a: View<'_>,
    b: &Packed,
    corrections: &[Correction<'_>],
    c: &mut [f32],
    c_stride: usize,
    into: Into<'_>,
) {
    let (m, k, n) = (a.rows, a.columns, b.columns());
    assert_eq!(k, b.rows(), "matmul: inner dimensions differ");
    assert!(c_stride >= n, "matmul: rows of C overlap");
    for x in corrections {
        assert_eq!((x.a.rows, x.a.columns), (m, x.b.rows()), "matmul: a correction has another shape");
        assert!(x.start + x.b.columns() <= n, "matmul: a correction is too wide");
        assert_eq!(x.b.precision(), b.precision(), "matmul: a correction has another precision");
    }
    if m == 0 || n == 0 {
        return;
    }
    let end = (m - 1) * c_stride + n;
    assert!(c.len() >= end, "matmul: C is too short");
    if let Into::Onto(values) = into {
        assert!(values.len() >= end, "matmul: what the product is added to is too short");
    }
    // Several may meet in one tile only if they overlap.
    let overlap = |x: &Correction<'_>, y: &Correction<'_>| {
        x.start < y.start + y.b.columns() && y.start < x.start + x.b.columns()
    };
    let alone = |i: usize| corrections[..i].iter().all(|other| !overlap(&corrections[i], other));
    let (along, after): (Vec<usize>, Vec<usize>) =
        (0..corrections.len()).partition(|&i| corrections[i].is_aligned(n) && alone(i));
    let left = Left::new(a, b.precision());
    let along: Vec<(&Correction<'_>, Left<'_>)> =
        along.into_iter().map(|i| (&corrections[i], Left::new(corrections[i].a, b.precision()))).collect();
    let out = Shared::new(c);
    for_tiles(m, n, left.depth, |panel, i, rows, width| {
        let correction = along.iter().find_map(|(x, left)| x.panel(panel).map(|own| (x.b, left, own)));
        // SAFETY: `View` and the assertions above bound rows i..i+rows of A and C, of the corrections and of what is added to; panel
        // `panel` of B has as many rows (or pairs) as A has columns; each tile of C is written by one task only.
        unsafe {
            let start = i * c_stride + panel * PANEL;
            let tile = Tile {
                width,
                product: left.factors(i, b, panel),
                then: correction.map(|(b, left, own)| left.factors(i, b, own)),
                c: out.get().add(start),
                c_row: c_stride,
                onto: match into {
                    Into::Set => None,
                    Into::Add => Some(out.get().add(start).cast_const()),
                    Into::Onto(values) => Some(values.as_ptr().add(start)),
                },
            };
            kernel::edge_tile(b.precision(), rows, tile);
        }
    });
    for i in after {
        let x = &corrections[i];
        matmul(x.a, x.b, &mut c[x.start..], c_stride, Into::Add);
    }
}

/// The left matrix as the kernels read it: in place, or in bf16 pairs.
struct Left<'a> {
    a: View<'a>,
    /// Elements, or pairs, of a row.
    depth: usize,
    /// `[m, depth]`.
    pairs: Option<Buffer>,
}

impl<'a> Left<'a> {
    fn new(a: View<'a>, precision: Precision) -> Self {
        let pairs = (precision == Precision::Bf16).then(|| pack::to_bf16_pairs(a));
        let depth = if pairs.is_some() { a.columns.div_ceil(2) } else { a.columns };
        Self { a, depth, pairs }
    }

    /// The product of the rows from `i` with a panel of `b`.
    ///
    /// # Safety
    /// Row `i` exists.
    unsafe fn factors(&self, i: usize, b: &Packed, panel: usize) -> Factors {
        let (a, a_row, a_column) = match &self.pairs {
            Some(pairs) => (pairs.as_ptr(), self.depth, 1),
            None => (self.a.data.as_ptr(), self.a.row_stride, self.a.column_stride),
        };
        // SAFETY: the caller's contract.
        let a = unsafe { a.add(i * a_row) };
        Factors { depth: self.depth, a, a_row, a_column, b: b.panel(panel), b_row: PANEL }
    }
}

/// `C += Aᵀ · B` where `A`, `[t, m]`, has few columns: the gradient of a LoRA factor. `B`, `[t, n]` with contiguous
/// rows, is read in place, each of its cache lines once per `HALF_ROWS` columns of `A`; `c` is `[m, n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn add_skinny(a: View<'_>, b: View<'_>, c: &mut [f32]) {
    let (m, n) = (a.columns, b.columns);
    assert_eq!(a.rows, b.rows, "add_skinny: inner dimensions differ");
    assert_eq!(c.len(), m * n, "add_skinny: C has another shape");
    assert_eq!(b.column_stride, 1, "add_skinny: rows of B are contiguous");
    if m == 0 || n == 0 || a.rows == 0 {
        return;
    }
    let rows = m.div_ceil(m.div_ceil(kernel::HALF_ROWS));
    let out = Shared::new(c);
    // Neighbours share the pages that they read.
    (0..n.div_ceil(PANEL)).into_par_iter().with_min_len(n.div_ceil(PANEL * 16)).for_each(|panel| {
        for column in (panel * PANEL..n.min((panel + 1) * PANEL)).step_by(kernel::HALF) {
            for i in (0..m).step_by(rows) {
                // SAFETY: `View` and the assertions above bound A, B and C; each column of C belongs to one task.
                unsafe {
                    let product = Factors {
                        depth: a.rows,
                        a: a.data.as_ptr().add(i * a.column_stride),
                        a_row: a.column_stride,
                        a_column: a.row_stride,
                        b: b.data.as_ptr().add(column),
                        b_row: b.row_stride,
                    };
                    let c = out.get().add(i * n + column);
                    let tile = Tile {
                        width: kernel::HALF.min(n - column),
                        product,
                        then: None,
                        c,
                        c_row: n,
                        onto: Some(c),
                    };
                    narrow_tile(rows.min(m - i), tile);
                }
            }
        }
    });
}

/// Rows of `A` that are worked on while they stay in the second-level cache.
fn row_block(depth: usize) -> usize {
    const BYTES: usize = 256 * 1024;
    (BYTES / (4 * depth.max(1))).clamp(kernel::ROWS, 480) / kernel::ROWS * kernel::ROWS
}

/// Calls `tile(panel, first row, rows, columns)` for all tiles of C, `[m, n]`, on the threads of the current pool.
/// Tasks are ranges of panels; where these are few, of rows too.
fn for_tiles(m: usize, n: usize, depth: usize, tile: impl Fn(usize, usize, usize, usize) + Sync) {
    const SERIAL_BELOW: usize = 64 * 1024;
    let (panels, blocks) = (n.div_ceil(PANEL), m.div_ceil(kernel::ROWS));
    let run = |panels: Range<usize>, rows: Range<usize>| {
        for row in rows.clone().step_by(row_block(depth)) {
            for panel in panels.clone() {
                let width = PANEL.min(n - panel * PANEL);
                for i in (row..rows.end.min(row + row_block(depth))).step_by(kernel::ROWS) {
                    tile(panel, i, kernel::ROWS.min(m - i), width);
                }
            }
        }
    };
    let threads = rayon::current_num_threads();
    if threads == 1 || m * n * depth < SERIAL_BELOW {
        return run(0..panels, 0..m);
    }
    // A few tasks per thread, so that a thread which lost its core does not hold up the others.
    let wanted = threads * 4;
    let across = panels.min(wanted);
    let down = wanted.div_ceil(across).min(blocks);
    let part = |of: usize, parts: usize, index: usize| of * index / parts..of * (index + 1) / parts;
    (0..across * down).into_par_iter().with_max_len(1).for_each(|task| {
        let rows = part(blocks, down, task / across);
        let rows = rows.start * kernel::ROWS..m.min(rows.end * kernel::ROWS);
        run(part(panels, across, task % across), rows);
    });
}

#[cfg(test)]
mod tests;
