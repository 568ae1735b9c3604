//! A tile of `C`, up to [`ROWS`] × [`PANEL`], in registers.

use super::PANEL;
use crate::isa::Isa;

/// Rows of a tile.
pub(crate) const ROWS: usize = 12;

/// One tile: `C[rows, PANEL] (+)= A[rows, depth] · B[depth, PANEL]`.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) depth: usize,
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_column: usize,
    pub(crate) b: *const f32,
    pub(crate) b_row: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    /// Start from the values in `C` instead of zero.
    pub(crate) add: bool,
}

/// Computes a tile of `rows` ≤ [`ROWS`] rows.
///
/// # Safety
/// For i < rows, p < depth, j < PANEL: `a[i * a_row + p * a_column]` and `b[p * b_row + j]` are readable,
/// `c[i * c_row + j]` writable by this thread alone (and readable, with `add`).
#[inline]
pub(crate) unsafe fn tile(rows: usize, t: Tile) {
    debug_assert!(rows <= ROWS);
    // SAFETY: the caller's contract; the instruction set was detected.
    unsafe {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => super::x86::tile_avx512(rows, t),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::x86::tile_avx2(rows, t),
            _ => tile_portable(rows, t),
        }
    }
}

/// Like [`tile`], where only the first `width` columns of `C` exist.
///
/// # Safety
/// As for [`tile`], with j < width for `c`.
#[inline]
pub(super) unsafe fn edge_tile(rows: usize, width: usize, t: Tile) {
    // SAFETY: whole tiles by the caller's contract; others through a buffer that has all columns.
    unsafe {
        if width == PANEL {
            tile(rows, t);
        } else {
            through_buffer(rows, width, t.c, t.c_row, t.add, |buffer| {
                tile(rows, Tile { c: buffer, c_row: PANEL, ..t });
            });
        }
    }
}

/// Like [`edge_tile`], where also `B` has only the first `width` columns.
///
/// # Safety
/// As for [`tile`], with j < width for `b` and `c`.
pub(crate) unsafe fn narrow_tile(rows: usize, width: usize, t: Tile) {
    // SAFETY: whole tiles by the caller's contract; others read B through a copy that has all columns.
    unsafe {
        if width == PANEL {
            return tile(rows, t);
        }
        let mut b = vec![0.0f32; t.depth * PANEL];
        for p in 0..t.depth {
            std::ptr::copy_nonoverlapping(t.b.add(p * t.b_row), b.as_mut_ptr().add(p * PANEL), width);
        }
        edge_tile(rows, width, Tile { b: b.as_ptr(), b_row: PANEL, ..t });
    }
}

/// bf16 tile: `a` is `[rows, pairs]` pairs, `b` is `[pairs, PANEL]` pairs.
///
/// # Safety
/// As for [`edge_tile`].
#[inline]
pub(super) unsafe fn edge_tile_bf16(
    rows: usize,
    width: usize,
    pairs: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let run = |c: *mut f32, c_row: usize| {
        // SAFETY: the caller's contract; the instruction set was detected.
        unsafe {
            match Isa::current() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Bf16 => super::x86::tile_bf16(rows, pairs, a, b, c, c_row, add),
                _ => tile_bf16_portable(rows, pairs, a, b, c, c_row, add),
            }
        }
    };
    if width == PANEL {
        run(c, c_row);
    } else {
        // SAFETY: the caller's contract.
        unsafe { through_buffer(rows, width, c, c_row, add, |buffer| run(buffer, PANEL)) }
    }
}

unsafe fn through_buffer(
    rows: usize,
    width: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
    run: impl FnOnce(*mut f32),
) {
    let mut buffer = [0.0f32; ROWS * PANEL];
    // SAFETY: the caller bounds rows × width of `c`; the buffer has ROWS × PANEL.
    unsafe {
        if add {
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(c.add(i * c_row), buffer.as_mut_ptr().add(i * PANEL), width);
            }
        }
        run(buffer.as_mut_ptr());
        for i in 0..rows {
            std::ptr::copy_nonoverlapping(buffer.as_ptr().add(i * PANEL), c.add(i * c_row), width);
        }
    }
}

/// Reference kernel, and the one for processors without a kernel of their own.
///
/// # Safety
/// As for [`tile`].
pub(super) unsafe fn tile_portable(rows: usize, t: Tile) {
    // SAFETY: the caller's contract bounds every index used.
    unsafe {
        for i in 0..rows {
            let mut sums = [0.0f32; PANEL];
            if t.add {
                std::ptr::copy_nonoverlapping(t.c.add(i * t.c_row), sums.as_mut_ptr(), PANEL);
            }
            for p in 0..t.depth {
                let a = *t.a.add(i * t.a_row + p * t.a_column);
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = a.mul_add(*t.b.add(p * t.b_row + j), *sum);
                }
            }
            std::ptr::copy_nonoverlapping(sums.as_ptr(), t.c.add(i * t.c_row), PANEL);
        }
    }
}

/// Reference for the bf16 kernel: the same operands, products and sums in f32.
///
/// # Safety
/// As for [`edge_tile_bf16`] with a whole tile.
pub(super) unsafe fn tile_bf16_portable(
    rows: usize,
    pairs: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let low = |x: u32| f32::from_bits(x << 16);
    let high = |x: u32| f32::from_bits(x & 0xffff_0000);
    // SAFETY: the caller's contract bounds every index used.
    unsafe {
        for i in 0..rows {
            for j in 0..PANEL {
                let mut sum = if add { *c.add(i * c_row + j) } else { 0.0 };
                for p in 0..pairs {
                    let (x, y) = (*a.add(i * pairs + p), *b.add(p * PANEL + j));
                    sum = high(x).mul_add(high(y), sum);
                    sum = low(x).mul_add(low(y), sum);
                }
                *c.add(i * c_row + j) = sum;
            }
        }
    }
}
