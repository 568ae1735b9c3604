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

use rayon::prelude::*;

pub(crate) use kernel::{Tile, narrow_tile, tile};
pub use pack::{Packed, Precision};

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

/// `C = A · B` (or `C += A · B`): `a` is `[m, k]`, `b` packed from `[k, n]`, `c` row-major `[m, n]` with rows
/// `c_stride` apart.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul(a: View<'_>, b: &Packed, c: &mut [f32], c_stride: usize, into: Into) {
    let (m, k, n) = (a.rows, a.columns, b.columns());
    assert_eq!(k, b.rows(), "matmul: inner dimensions differ");
    assert!(c_stride >= n, "matmul: rows of C overlap");
    if m == 0 || n == 0 {
        return;
    }
    assert!(c.len() >= (m - 1) * c_stride + n, "matmul: C is too short");
    match b.precision() {
        Precision::F32 => f32_product(a, b, c, c_stride, into),
        Precision::Bf16 => bf16_product(a, b, c, c_stride, into),
    }
}

/// Rows of `A` that are worked on while they stay in the second-level cache.
fn row_block(k: usize) -> usize {
    const BYTES: usize = 256 * 1024;
    (BYTES / (4 * k.max(1))).clamp(kernel::ROWS, 480) / kernel::ROWS * kernel::ROWS
}

fn f32_product(a: View<'_>, b: &Packed, c: &mut [f32], c_stride: usize, into: Into) {
    let (m, k, n) = (a.rows, a.columns, b.columns());
    let out = Output(c.as_mut_ptr());
    for_panels(n, m * k, |panels| {
        for row in (0..m).step_by(row_block(k)) {
            for panel in panels.clone() {
                let width = PANEL.min(n - panel * PANEL);
                for i in (row..m.min(row + row_block(k))).step_by(kernel::ROWS) {
                    let rows = kernel::ROWS.min(m - i);
                    // SAFETY: `View` and the assertions of `matmul` bound rows i..i+rows of A and C; panel
                    // `panel` of B holds k rows; each panel of columns of C is written by one task only.
                    unsafe {
                        let t = Tile {
                            depth: k,
                            a: a.data.as_ptr().add(i * a.row_stride),
                            a_row: a.row_stride,
                            a_column: a.column_stride,
                            b: b.f32_panel(panel),
                            b_row: PANEL,
                            c: out.get().add(i * c_stride + panel * PANEL),
                            c_row: c_stride,
                            add: into == Into::Add,
                        };
                        kernel::edge_tile(rows, width, t);
                    }
                }
            }
        }
    });
}

fn bf16_product(a: View<'_>, b: &Packed, c: &mut [f32], c_stride: usize, into: Into) {
    let (m, n) = (a.rows, b.columns());
    let pairs = a.columns.div_ceil(2);
    let narrow = pack::to_bf16_pairs(a);
    let out = Output(c.as_mut_ptr());
    for_panels(n, m * pairs, |panels| {
        for row in (0..m).step_by(row_block(pairs)) {
            for panel in panels.clone() {
                let width = PANEL.min(n - panel * PANEL);
                for i in (row..m.min(row + row_block(pairs))).step_by(kernel::ROWS) {
                    let rows = kernel::ROWS.min(m - i);
                    // SAFETY: as in `f32_product`; `narrow` is `[m, pairs]`.
                    unsafe {
                        kernel::edge_tile_bf16(
                            rows,
                            width,
                            pairs,
                            narrow.as_ptr().add(i * pairs),
                            b.bf16_panel(panel),
                            out.get().add(i * c_stride + panel * PANEL),
                            c_stride,
                            into == Into::Add,
                        );
                    }
                }
            }
        }
    });
}

/// Splits the panels of `n` columns over the threads of the current pool.
fn for_panels(n: usize, work_per_column: usize, f: impl Fn(std::ops::Range<usize>) + Sync) {
    const SERIAL_BELOW: usize = 64 * 1024;
    let panels = n.div_ceil(PANEL);
    let threads = rayon::current_num_threads();
    if threads == 1 || panels == 1 || work_per_column * n < SERIAL_BELOW {
        return f(0..panels);
    }
    // A few tasks per thread, so that a thread which lost its core does not hold up the others.
    let tasks = panels.min(threads * 4);
    (0..tasks)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| f(panels * task / tasks..panels * (task + 1) / tasks));
}

/// Start of `C`, shared by tasks that write disjoint columns.
#[derive(Clone, Copy)]
struct Output(*mut f32);

impl Output {
    /// A method, so that closures capture the whole and not the pointer inside.
    fn get(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: tasks write disjoint elements, see `f32_product`.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

#[cfg(test)]
mod tests;
