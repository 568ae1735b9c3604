//! A tile of `C`, up to [`ROWS`] × [`PANEL`], in registers.

use super::{PANEL, Precision};
use crate::isa::Isa;

/// Rows of a tile of whole panels.
pub(crate) const ROWS: usize = 12;

/// Columns of half a panel. Kernels leave out the second half where nobody wants it: LoRA's factors are narrow.
pub(super) const HALF: usize = PANEL / 2;

/// Rows of a tile of half a panel.
pub(super) const HALF_ROWS: usize = 2 * ROWS;

/// `A[rows, depth] · B[depth, width]`. In bf16 an element of `A` and `B` is a pair of neighbours along the depth.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) depth: usize,
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_column: usize,
    pub(crate) b: *const f32,
    pub(crate) b_row: usize,
}

/// One tile: `C[rows, width] = A · B`, and then the second product. Kernels compute half a panel or all of it.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) width: usize,
    pub(crate) product: Factors,
    pub(crate) then: Option<Factors>,
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    /// What the sums start from instead of zero, in rows as far apart as those of `C`: `C` itself, or another matrix.
    pub(crate) onto: Option<*const f32>,
}

impl Tile {
    pub(super) fn products(&self) -> impl Iterator<Item = Factors> {
        std::iter::once(self.product).chain(self.then)
    }
}

/// Computes a tile of up to [`ROWS`] rows and [`PANEL`] columns, or [`HALF_ROWS`] and [`HALF`], in f32.
///
/// # Safety
/// For both products and i < rows, p < depth, j < width: `a[i * a_row + p * a_column]` and `b[p * b_row + j]` are
/// readable, `c[i * c_row + j]` writable by this thread alone, and `onto` readable like it.
#[inline]
pub(crate) unsafe fn tile(rows: usize, t: Tile) {
    // SAFETY: the caller's contract.
    unsafe { whole_tile(Precision::F32, rows, t) }
}

/// # Safety
/// As for [`tile`].
#[inline]
unsafe fn whole_tile(precision: Precision, rows: usize, t: Tile) {
    debug_assert!(t.width == PANEL && rows <= ROWS || t.width == HALF && rows <= HALF_ROWS);
    // SAFETY: the caller's contract; the instruction set was detected.
    unsafe {
        match (precision, Isa::current()) {
            #[cfg(target_arch = "x86_64")]
            (Precision::F32, Isa::Avx512 | Isa::Avx512Bf16) => super::x86::tile_avx512(rows, t),
            #[cfg(target_arch = "x86_64")]
            (Precision::F32, Isa::Avx2) => super::x86::tile_avx2(rows, t),
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16, Isa::Avx512Bf16) => super::x86::tile_bf16(rows, t),
            (Precision::F32, _) => tile_portable(rows, t),
            (Precision::Bf16, _) => tile_bf16_portable(rows, t),
        }
    }
}

/// A tile of any width; `b` has whole panels.
///
/// # Safety
/// As for [`tile`], with j < PANEL for `b`.
#[inline]
pub(super) unsafe fn edge_tile(precision: Precision, rows: usize, t: Tile) {
    let width = computed(t.width);
    // SAFETY: whole tiles by the caller's contract; others through a buffer that has all columns.
    unsafe {
        if width == t.width {
            whole_tile(precision, rows, t);
        } else {
            through_buffer(rows, t, |buffer| {
                let onto = t.onto.map(|_| buffer.cast_const());
                whole_tile(precision, rows, Tile { width, c: buffer, c_row: PANEL, onto, ..t });
            });
        }
    }
}

/// Columns that a kernel computes for `width` of them.
fn computed(width: usize) -> usize {
    if width <= HALF { HALF } else { PANEL }
}

/// A tile of any width in f32, of one product, where also `B` has no more than `width` columns.
///
/// # Safety
/// As for [`tile`].
pub(crate) unsafe fn narrow_tile(rows: usize, t: Tile) {
    // SAFETY: whole tiles by the caller's contract; others read B through a copy that has all columns.
    unsafe {
        if t.width == computed(t.width) {
            return tile(rows, t);
        }
        let Factors { depth, b, b_row, .. } = t.product;
        let mut whole = vec![0.0f32; depth * PANEL];
        for p in 0..depth {
            std::ptr::copy_nonoverlapping(b.add(p * b_row), whole.as_mut_ptr().add(p * PANEL), t.width);
        }
        let product = Factors { b: whole.as_ptr(), b_row: PANEL, ..t.product };
        edge_tile(Precision::F32, rows, Tile { product, ..t });
    }
}

unsafe fn through_buffer(rows: usize, t: Tile, run: impl FnOnce(*mut f32)) {
    let mut buffer = [0.0f32; HALF_ROWS * PANEL];
    // SAFETY: the caller bounds rows × width of `c`; the buffer has room for the rows of any tile.
    unsafe {
        if let Some(onto) = t.onto {
            for i in 0..rows {
                let row = buffer.as_mut_ptr().add(i * PANEL);
                std::ptr::copy_nonoverlapping(onto.add(i * t.c_row), row, t.width);
            }
        }
        run(buffer.as_mut_ptr());
        for i in 0..rows {
            let row = buffer.as_ptr().add(i * PANEL);
            std::ptr::copy_nonoverlapping(row, t.c.add(i * t.c_row), t.width);
        }
    }
}

/// Reference kernel, and the one for processors without a kernel of their own.
///
/// # Safety
/// As for [`tile`].
pub(super) unsafe fn tile_portable(rows: usize, t: Tile) {
    // SAFETY: the caller's contract.
    unsafe {
        by_chains(rows, t, |sums, a, b| {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        });
    }
}

/// Reference for the bf16 kernel: the same operands, products and sums in f32.
///
/// # Safety
/// As for [`tile`].
pub(super) unsafe fn tile_bf16_portable(rows: usize, t: Tile) {
    let low = |x: f32| f32::from_bits(x.to_bits() << 16);
    let high = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    // SAFETY: the caller's contract.
    unsafe {
        by_chains(rows, t, |sums, a, b| {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = high(a).mul_add(high(b), *sum);
                *sum = low(a).mul_add(low(b), *sum);
            }
        });
    }
}

/// Row by row: `step` adds the products of one element of `A` to the sums.
///
/// # Safety
/// As for [`tile`].
unsafe fn by_chains(rows: usize, t: Tile, step: impl Fn(&mut [f32], f32, &[f32])) {
    for i in 0..rows {
        let mut sums = [0.0f32; PANEL];
        let sums = &mut sums[..t.width];
        // SAFETY: the caller's contract bounds every index used.
        unsafe {
            let c = t.c.add(i * t.c_row);
            if let Some(onto) = t.onto {
                std::ptr::copy_nonoverlapping(onto.add(i * t.c_row), sums.as_mut_ptr(), t.width);
            }
            for f in t.products() {
                for p in 0..f.depth {
                    let b = std::slice::from_raw_parts(f.b.add(p * f.b_row), t.width);
                    step(sums, *f.a.add(i * f.a_row + p * f.a_column), b);
                }
            }
            std::ptr::copy_nonoverlapping(sums.as_ptr(), c, t.width);
        }
    }
}
