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

pub(crate) use kernel::{Tile, narrow_tile, tile};
pub use pack::{Packed, Precision};

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
        let needed = if rows == 0 { 0 } else { (rows - 1) * row_stride + columns };
        assert!(data.len() >= needed, "view [{rows}, {columns}] needs {needed} elements, got {}", data.len());
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

/// What happens to the values already in `C`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// They are overwritten.
    Set,
    /// The product is added to them: each chain of multiply-adds starts from the value that is there.
    Add,
}

/// A product of small inner dimension that is added to some columns of another one: the up-projection of a LoRA.
#[derive(Clone, Copy, Debug)]
pub struct Correction<'a> {
    /// `[m, r]`.
    pub a: View<'a>,
    /// Packed from `[r, width]`, in f32.
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
pub fn matmul(a: View<'_>, b: &Packed, c: &mut [f32], c_stride: usize, into: Into) {
    matmul_with(a, b, &[], c, c_stride, into);
}

/// As [`matmul`]; then adds the corrections. A tile of `C` takes them along while it is in the first-level cache.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_with(
    a: View<'_>,
    b: &Packed,
    corrections: &[Correction<'_>],
    c: &mut [f32],
    c_stride: usize,
    into: Into,
) {
    let (m, k, n) = (a.rows, a.columns, b.columns());
    assert_eq!(k, b.rows(), "matmul: inner dimensions differ");
    assert!(c_stride >= n, "matmul: rows of C overlap");
    for x in corrections {
        assert_eq!((x.a.rows, x.a.columns), (m, x.b.rows()), "matmul: a correction has another shape");
        assert!(x.start + x.b.columns() <= n, "matmul: a correction is too wide");
        assert_eq!(x.b.precision(), Precision::F32, "matmul: corrections are in f32");
    }
    if m == 0 || n == 0 {
        return;
    }
    assert!(c.len() >= (m - 1) * c_stride + n, "matmul: C is too short");
    let (along, after): (Vec<&Correction>, Vec<&Correction>) =
        corrections.iter().partition(|x| x.is_aligned(n));
    let narrow = (b.precision() == Precision::Bf16).then(|| pack::to_bf16_pairs(a));
    let depth = if narrow.is_some() { k.div_ceil(2) } else { k };
    let out = Shared::new(c);
    for_tiles(m, n, depth, |panel, i, rows, width| {
        // SAFETY: `View` and the assertions above bound rows i..i+rows of A and C, and of the corrections; `narrow`
        // is `[m, depth]`; panel `panel` of B has k rows (or pairs); each tile of C is written by one task only.
        unsafe {
            let c = out.get().add(i * c_stride + panel * PANEL);
            let add = into == Into::Add;
            if let Some(narrow) = &narrow {
                let a = narrow.as_ptr().cast::<u32>().add(i * depth);
                kernel::edge_tile_bf16(rows, width, depth, a, b.panel(panel).cast(), c, c_stride, add);
            } else {
                kernel::edge_tile(rows, width, f32_tile(a, b, i, panel, c, c_stride, add));
            }
            for x in &along {
                if let Some(own) = x.panel(panel) {
                    kernel::edge_tile(rows, width, f32_tile(x.a, x.b, i, own, c, c_stride, true));
                }
            }
        }
    });
    for x in after {
        matmul(x.a, x.b, &mut c[x.start..], c_stride, Into::Add);
    }
}

/// The tile of rows from `i` and panel `panel` of `b`.
///
/// # Safety
/// Row `i` of `a` exists.
unsafe fn f32_tile(
    a: View<'_>,
    b: &Packed,
    i: usize,
    panel: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
) -> Tile {
    Tile {
        depth: a.columns,
        // SAFETY: the caller's contract.
        a: unsafe { a.data.as_ptr().add(i * a.row_stride) },
        a_row: a.row_stride,
        a_column: a.column_stride,
        b: b.panel(panel),
        b_row: PANEL,
        c,
        c_row,
        add,
    }
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
