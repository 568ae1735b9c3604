//! Tiles for x86-64. A row of the tile is two 512-bit (or, per half panel, two 256-bit) accumulators.

use std::arch::x86_64::{
    __m512bh, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::PANEL;
use super::kernel::{ROWS, Tile};

macro_rules! by_rows {
    ($rows:expr, $f:ident, $($args:expr),*) => {
        match $rows {
            1 => $f::<1>($($args),*),
            2 => $f::<2>($($args),*),
            3 => $f::<3>($($args),*),
            4 => $f::<4>($($args),*),
            5 => $f::<5>($($args),*),
            6 => $f::<6>($($args),*),
            7 => $f::<7>($($args),*),
            8 => $f::<8>($($args),*),
            9 => $f::<9>($($args),*),
            10 => $f::<10>($($args),*),
            11 => $f::<11>($($args),*),
            _ => $f::<12>($($args),*),
        }
    };
}

/// # Safety
/// As for [`super::kernel::tile`], on a processor with AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_avx512(rows: usize, t: Tile) {
    // SAFETY: the caller's contract.
    unsafe { by_rows!(rows, rows_avx512, t) }
}

#[target_feature(enable = "avx512f")]
unsafe fn rows_avx512<const M: usize>(t: Tile) {
    // SAFETY: the caller's contract bounds every address.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; M];
        if t.add {
            for (i, sum) in sums.iter_mut().enumerate() {
                let c = t.c.add(i * t.c_row);
                *sum = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.depth {
            let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i * t.a_row));
                sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
            }
            a = a.wrapping_add(t.a_column);
            b = b.wrapping_add(t.b_row);
        }
        for (i, sum) in sums.iter().enumerate() {
            let c = t.c.add(i * t.c_row);
            _mm512_storeu_ps(c, sum[0]);
            _mm512_storeu_ps(c.add(16), sum[1]);
        }
    }
}

/// # Safety
/// As for [`super::kernel::edge_tile_bf16`] with a whole tile, on a processor with AVX-512-BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile_bf16(
    rows: usize,
    pairs: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's contract.
    unsafe { by_rows!(rows, rows_bf16, pairs, a, b, c, c_row, add) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows_bf16<const M: usize>(
    pairs: usize,
    a: *const u32,
    b: *const u32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's contract bounds every address; the transmutes reinterpret 64 bytes as 64 bytes.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; M];
        if add {
            for (i, sum) in sums.iter_mut().enumerate() {
                let c = c.add(i * c_row);
                *sum = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
            }
        }
        let mut b = b;
        for p in 0..pairs {
            let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.cast()));
            let b1: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.add(16).cast()));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x: __m512bh =
                    std::mem::transmute(_mm512_set1_epi32((*a.add(i * pairs + p)).cast_signed()));
                sum[0] = _mm512_dpbf16_ps(sum[0], x, b0);
                sum[1] = _mm512_dpbf16_ps(sum[1], x, b1);
            }
            b = b.wrapping_add(PANEL);
        }
        for (i, sum) in sums.iter().enumerate() {
            let c = c.add(i * c_row);
            _mm512_storeu_ps(c, sum[0]);
            _mm512_storeu_ps(c.add(16), sum[1]);
        }
    }
}

/// # Safety
/// As for [`super::kernel::tile`], on a processor with AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_avx2(rows: usize, t: Tile) {
    const HALF: usize = 16;
    const BLOCK: usize = ROWS / 2;
    // SAFETY: the caller's contract; each call covers a quarter of the tile.
    unsafe {
        for first in (0..rows).step_by(BLOCK) {
            for column in (0..PANEL).step_by(HALF) {
                let part = Tile {
                    a: t.a.add(first * t.a_row),
                    b: t.b.add(column),
                    c: t.c.add(first * t.c_row + column),
                    ..t
                };
                match BLOCK.min(rows - first) {
                    1 => rows_avx2::<1>(part),
                    2 => rows_avx2::<2>(part),
                    3 => rows_avx2::<3>(part),
                    4 => rows_avx2::<4>(part),
                    5 => rows_avx2::<5>(part),
                    _ => rows_avx2::<6>(part),
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn rows_avx2<const M: usize>(t: Tile) {
    // SAFETY: the caller's contract bounds every address.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        if t.add {
            for (i, sum) in sums.iter_mut().enumerate() {
                let c = t.c.add(i * t.c_row);
                *sum = [_mm256_loadu_ps(c), _mm256_loadu_ps(c.add(8))];
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.depth {
            let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(i * t.a_row));
                sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
            }
            a = a.wrapping_add(t.a_column);
            b = b.wrapping_add(t.b_row);
        }
        for (i, sum) in sums.iter().enumerate() {
            let c = t.c.add(i * t.c_row);
            _mm256_storeu_ps(c, sum[0]);
            _mm256_storeu_ps(c.add(8), sum[1]);
        }
    }
}
