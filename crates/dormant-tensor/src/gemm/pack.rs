//! Packing of the right-hand matrix, and narrowing to bf16.

use half::bf16;
use rayon::prelude::*;

use super::{PANEL, View};

/// Number format of a product's operands. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Both operands rounded to bf16; needs [`crate::isa::Isa::has_bf16`] to be fast.
    Bf16,
}

/// A matrix `[rows, columns]` in panels of [`PANEL`] columns, the last one padded with zeros.
///
/// f32: `[panel][row][PANEL]`. bf16: `[panel][row / 2][PANEL][2]`, rows padded to an even number.
#[derive(Clone, Debug)]
pub struct Packed {
    rows: usize,
    columns: usize,
    panels: Panels,
}

#[derive(Clone, Debug)]
enum Panels {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Packed {
    /// Packs `b`, in parallel.
    pub fn new(b: View<'_>, precision: Precision) -> Self {
        let mut packed = Self::zeros(b.rows, b.columns, precision);
        packed.fill(b);
        packed
    }

    /// A matrix of zeros, to be filled by [`Packed::fill`].
    pub fn zeros(rows: usize, columns: usize, precision: Precision) -> Self {
        let size = columns.div_ceil(PANEL) * PANEL * rows.next_multiple_of(2);
        let panels = match precision {
            Precision::F32 => Panels::F32(vec![0.0; columns.div_ceil(PANEL) * PANEL * rows]),
            Precision::Bf16 => Panels::Bf16(vec![bf16::ZERO; size]),
        };
        Self { rows, columns, panels }
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
        match &mut self.panels {
            Panels::F32(data) => {
                data.par_chunks_mut(PANEL * b.rows)
                    .enumerate()
                    .for_each(|(panel, out)| fill_f32(out, panel, b));
            }
            Panels::Bf16(data) => {
                let size = PANEL * b.rows.next_multiple_of(2);
                data.par_chunks_mut(size).enumerate().for_each(|(panel, out)| fill_bf16(out, panel, b));
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
        match self.panels {
            Panels::F32(_) => Precision::F32,
            Panels::Bf16(_) => Precision::Bf16,
        }
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(data) => data.len() * 4,
            Panels::Bf16(data) => data.len() * 2,
        }
    }

    pub(super) fn f32_panel(&self, panel: usize) -> *const f32 {
        match &self.panels {
            Panels::F32(data) => data[panel * PANEL * self.rows..].as_ptr(),
            Panels::Bf16(_) => unreachable!("the product is chosen by the precision"),
        }
    }

    pub(super) fn bf16_panel(&self, panel: usize) -> *const u32 {
        match &self.panels {
            Panels::Bf16(data) => data[panel * PANEL * self.rows.next_multiple_of(2)..].as_ptr().cast(),
            Panels::F32(_) => unreachable!("the product is chosen by the precision"),
        }
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
    for p in (0..b.rows).step_by(TURNED) {
        let end = b.rows.min(p + TURNED);
        for j in 0..width {
            for q in p..end {
                out[(q / 2) * 2 * PANEL + 2 * j + q % 2] = bf16::from_f32(b.at(q, first + j));
            }
        }
    }
}

/// Rounds `a` to bf16 row-major `[rows, columns / 2]` pairs, an odd last column padded with zero.
pub(super) fn to_bf16_pairs(a: View<'_>) -> Vec<u32> {
    let pairs = a.columns.div_ceil(2);
    let mut out = vec![0u32; a.rows * pairs];
    let convert = |(i, row): (usize, &mut [u32])| {
        if a.column_stride == 1 {
            let source = &a.data[i * a.row_stride..i * a.row_stride + a.columns];
            narrow_row(source, row);
        } else {
            for (p, pair) in row.iter_mut().enumerate() {
                let high = if 2 * p + 1 < a.columns { a.at(i, 2 * p + 1) } else { 0.0 };
                *pair = round_to_bf16(a.at(i, 2 * p)) | (round_to_bf16(high) << 16);
            }
        }
    };
    if a.rows * pairs < crate::simd::CHUNK {
        out.chunks_mut(pairs.max(1)).enumerate().for_each(convert);
    } else {
        out.par_chunks_mut(pairs).enumerate().with_min_len(8).for_each(convert);
    }
    out
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
fn round_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16
}
