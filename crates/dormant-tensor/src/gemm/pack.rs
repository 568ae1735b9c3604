//! Packing of the right-hand matrix, and narrowing to bf16.

use bytemuck::{cast_slice, cast_slice_mut};
use half::bf16;
use rayon::prelude::*;

use super::{PANEL, View};
use crate::arena::Buffer;

/// Number format of a product's operands. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Both operands rounded to bf16; needs [`crate::isa::Isa::has_bf16`] to be fast.
    Bf16,
}

/// A matrix `[rows, columns]` in panels of [`PANEL`] columns. What is beyond the last column has no meaning.
///
/// f32: `[panel][row][PANEL]`. bf16: `[panel][row / 2][PANEL][2]`, rows padded with zeros to an even number.
#[derive(Clone, Debug)]
pub struct Packed {
    rows: usize,
    columns: usize,
    precision: Precision,
    panels: Buffer,
}

impl Packed {
    /// Packs `b`, in parallel.
    pub fn new(b: View<'_>, precision: Precision) -> Self {
        let (rows, columns) = (b.rows, b.columns);
        let size = columns.div_ceil(PANEL) * panel_floats(rows, precision);
        let mut packed = Self { rows, columns, precision, panels: Buffer::any(size) };
        packed.fill(b);
        packed
    }

    /// Replaces the values by those of `b`, which has the same shape.
    ///
    /// # Panics
    /// If the shape differs.
    pub fn fill(&mut self, b: View<'_>) {
        assert_eq!((self.rows, self.columns), (b.rows, b.columns), "fill: shapes differ");
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let panels = self.panels.par_chunks_mut(panel_floats(b.rows, self.precision)).enumerate();
        match self.precision {
            Precision::F32 => panels.for_each(|(panel, out)| fill_f32(out, panel, b)),
            Precision::Bf16 => panels.for_each(|(panel, out)| fill_bf16(cast_slice_mut(out), panel, b)),
        }
    }

    /// The transposed matrix, `[columns, rows]`, from the values as they are here.
    #[must_use]
    pub fn turned(&self) -> Self {
        let (rows, columns, precision) = (self.columns, self.rows, self.precision);
        let size = panel_floats(rows, precision);
        let mut turned =
            Self { rows, columns, precision, panels: Buffer::any(columns.div_ceil(PANEL) * size) };
        if rows == 0 || columns == 0 {
            return turned;
        }
        turned.panels.par_chunks_mut(size).enumerate().for_each(|(panel, out)| match precision {
            Precision::F32 => self.turn::<f32, 1>(panel, out),
            Precision::Bf16 => self.turn::<bf16, 2>(panel, cast_slice_mut(out)),
        });
        turned
    }

    /// Fills panel `panel` of the transposed matrix. `DEEP` rows lie beside each other in a panel.
    fn turn<T: bytemuck::Pod, const DEEP: usize>(&self, panel: usize, out: &mut [T]) {
        let at = |row: usize, column: usize| row / DEEP * DEEP * PANEL + column * DEEP + row % DEEP;
        let first = panel * PANEL;
        let own = first..self.rows.min(first + PANEL);
        let source: &[T] = cast_slice(&self.panels);
        let sources = source.chunks_exact(self.rows.next_multiple_of(DEEP) * PANEL);
        for (block, source) in sources.enumerate() {
            for row in own.clone() {
                for column in 0..PANEL.min(self.columns - block * PANEL) {
                    out[at(block * PANEL + column, row - first)] = source[at(row, column)];
                }
            }
        }
        for row in self.columns..self.columns.next_multiple_of(DEEP) {
            for column in 0..PANEL {
                out[at(row, column)] = T::zeroed();
            }
        }
    }

    /// Writes column `column` to `out`, one value per row.
    ///
    /// # Panics
    /// If there is no such column, or `out` is not as long as it.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        assert!(column < self.columns && out.len() == self.rows, "column: out of range");
        let size = panel_floats(self.rows, self.precision);
        let panel = &self.panels[column / PANEL * size..][..size];
        let lane = column % PANEL;
        match self.precision {
            Precision::F32 => {
                for (value, row) in out.iter_mut().zip(panel.chunks_exact(PANEL)) {
                    *value = row[lane];
                }
            }
            Precision::Bf16 => {
                let pairs: &[[bf16; 2]] = cast_slice(panel);
                for (values, row) in out.chunks_mut(2).zip(pairs.chunks_exact(PANEL)) {
                    values.iter_mut().zip(row[lane]).for_each(|(value, narrow)| *value = narrow.to_f32());
                }
            }
        }
    }

    /// Inner dimension.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Outer dimension.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number format of the values.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.panels)
    }

    /// Values (f32) or pairs of values (bf16) of a panel.
    pub(super) fn panel(&self, panel: usize) -> *const f32 {
        self.panels[panel * panel_floats(self.rows, self.precision)..].as_ptr()
    }
}

/// Size of a panel, in floats.
fn panel_floats(rows: usize, precision: Precision) -> usize {
    PANEL
        * match precision {
            Precision::F32 => rows,
            Precision::Bf16 => rows.div_ceil(2),
        }
}

/// Rows copied at a time: a block of source rows stays in the first-level cache while it is turned around. Even.
const TURNED: usize = 16;

fn fill_f32(out: &mut [f32], panel: usize, b: View<'_>) {
    let first = panel * PANEL;
    let width = PANEL.min(b.columns - first);
    if b.column_stride == 1 {
        for (p, row) in out.chunks_exact_mut(PANEL).enumerate() {
            let start = p * b.row_stride + first;
            row[..width].copy_from_slice(&b.data[start..start + width]);
        }
        return;
    }
    for p in (0..b.rows).step_by(TURNED) {
        let end = b.rows.min(p + TURNED);
        for j in 0..width {
            for q in p..end {
                out[q * PANEL + j] = b.at(q, first + j);
            }
        }
    }
}

fn fill_bf16(out: &mut [bf16], panel: usize, b: View<'_>) {
    let first = panel * PANEL;
    let width = PANEL.min(b.columns - first);
    if b.column_stride == 1 {
        for (q, out) in out.chunks_exact_mut(2 * PANEL).enumerate() {
            let row = |p: usize| &b.data[p * b.row_stride + first..][..width];
            let high = if 2 * q + 1 < b.rows { row(2 * q + 1) } else { &[0.0; PANEL][..width] };
            interleave(row(2 * q), high, out);
        }
    } else if b.row_stride == 1 {
        turn_into_panel(&b.data[first * b.column_stride..], b.column_stride, b.rows, width, out);
    } else {
        for (q, out) in out.chunks_exact_mut(2 * PANEL).enumerate() {
            for j in 0..width {
                for half in 0..2 {
                    let p = 2 * q + half;
                    out[2 * j + half] = if p < b.rows { narrow(b.at(p, first + j)) } else { bf16::ZERO };
                }
            }
        }
    }
}

crate::simd::vectorised! {
    /// One pair of rows of a panel.
    fn interleave(low: &[f32], high: &[f32], out: &mut [bf16]) {
        for ((pair, low), high) in out.as_chunks_mut::<2>().0.iter_mut().zip(low).zip(high) {
            *pair = [narrow(*low), narrow(*high)];
        }
    }
}

crate::simd::vectorised! {
    /// A panel of a transposed matrix: column `j` begins at `columns[j * stride]` and has `rows` values.
    fn turn_into_panel(columns: &[f32], stride: usize, rows: usize, width: usize, out: &mut [bf16]) {
        for start in (0..rows).step_by(TURNED) {
            let count = TURNED.min(rows - start);
            let mut tile = [[bf16::ZERO; TURNED]; PANEL];
            for (j, tile) in tile[..width].iter_mut().enumerate() {
                let source = &columns[j * stride + start..][..count];
                tile.iter_mut().zip(source).for_each(|(t, x)| *t = narrow(*x));
            }
            for q in 0..count.div_ceil(2) {
                let out = &mut out[(start / 2 + q) * 2 * PANEL..][..2 * PANEL];
                for (pair, tile) in out.as_chunks_mut::<2>().0.iter_mut().zip(&tile) {
                    *pair = [tile[2 * q], tile[2 * q + 1]];
                }
            }
        }
    }
}

/// Rounds `a` to bf16 row-major `[rows, columns / 2]` pairs, an odd last column padded with zero.
pub(super) fn to_bf16_pairs(a: View<'_>) -> Buffer {
    let pairs = a.columns.div_ceil(2);
    let mut buffer = Buffer::any(a.rows * pairs);
    let out: &mut [u32] = cast_slice_mut(&mut buffer);
    let block = if a.column_stride == 1 { 1 } else { TURNED };
    let convert = |(index, block_out): (usize, &mut [u32])| {
        let first = index * block;
        if a.column_stride == 1 {
            narrow_row(&a.data[first * a.row_stride..][..a.columns], block_out);
        } else if a.row_stride == 1 {
            narrow_columns(&a.data[first..], a.column_stride, a.columns, pairs, block_out);
        } else {
            for (i, row) in block_out.chunks_exact_mut(pairs).enumerate() {
                let value = |p: usize| if p < a.columns { a.at(first + i, p) } else { 0.0 };
                for (p, pair) in row.iter_mut().enumerate() {
                    *pair = round_to_bf16(value(2 * p)) | (round_to_bf16(value(2 * p + 1)) << 16);
                }
            }
        }
    };
    let size = (block * pairs).max(1);
    if a.rows * pairs < crate::simd::CHUNK {
        out.chunks_mut(size).enumerate().for_each(convert);
    } else {
        out.par_chunks_mut(size).enumerate().with_min_len(8 / block.min(8)).for_each(convert);
    }
    buffer
}

crate::simd::vectorised! {
    /// Up to [`TURNED`] rows of a transposed matrix: value `p` of row `i` is `source[p * stride + i]`.
    fn narrow_columns(source: &[f32], stride: usize, columns: usize, pairs: usize, out: &mut [u32]) {
        let count = out.len() / pairs;
        for start in (0..pairs).step_by(TURNED) {
            let width = TURNED.min(pairs - start);
            let mut tile = [[0u32; TURNED]; TURNED];
            for (q, tile) in tile[..width].iter_mut().enumerate() {
                let p = 2 * (start + q);
                let low = &source[p * stride..][..count];
                tile.iter_mut().zip(low).for_each(|(t, x)| *t = round_to_bf16(*x));
                if p + 1 < columns {
                    let high = &source[(p + 1) * stride..][..count];
                    tile.iter_mut().zip(high).for_each(|(t, x)| *t |= round_to_bf16(*x) << 16);
                }
            }
            for (i, row) in out.chunks_exact_mut(pairs).enumerate() {
                for (pair, tile) in row[start..start + width].iter_mut().zip(&tile) {
                    *pair = tile[i];
                }
            }
        }
    }
}

crate::simd::vectorised! {
    fn narrow_row(source: &[f32], pairs: &mut [u32]) {
        let (whole, rest) = source.as_chunks::<2>();
        for (pair, [low, high]) in pairs.iter_mut().zip(whole) {
            *pair = round_to_bf16(*low) | (round_to_bf16(*high) << 16);
        }
        if let Some(last) = rest.first() {
            pairs[whole.len()] = round_to_bf16(*last);
        }
    }
}

/// Round to nearest, ties to even. A NaN may turn into infinity, which a loss check catches as well.
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16
}

#[inline(always)]
fn narrow(x: f32) -> bf16 {
    bf16::from_bits(round_to_bf16(x) as u16)
}
