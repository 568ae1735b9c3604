//! Tiles for x86-64. A row of the tile is two 512-bit (or, per half panel, two 256-bit) accumulators.

use std::arch::x86_64::{
    __m512, __m512bh, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::kernel::{Factors, HALF, ROWS, Tile};

/// Calls `f::<rows, vectors>`: up to 12 rows of two vectors or 24 of one, so that sums fill the registers.
macro_rules! by_shape {
    ($rows:expr, $columns:expr, $f:ident, $args:tt) => {
        if $columns == HALF {
            by_rows!($rows, 1, [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23], 24, $f, $args)
        } else {
            by_rows!($rows, 2, [1 2 3 4 5 6 7 8 9 10 11], 12, $f, $args)
        }
    };
}

macro_rules! by_rows {
    ($rows:expr, $vectors:literal, [$($few:literal)*], $most:literal, $f:ident, $args:tt) => {
        match $rows {
            $($few => $f::<$few, $vectors>$args,)*
            _ => $f::<$most, $vectors>$args,
        }
    };
}

/// # Safety
/// As for [`super::kernel::tile`], on a processor with AVX-512.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_avx512(rows: usize, t: Tile) {
    // SAFETY: the caller's contract.
    unsafe { by_shape!(rows, t.width, rows_avx512, (t)) }
}

#[target_feature(enable = "avx512f")]
unsafe fn rows_avx512<const M: usize, const V: usize>(t: Tile) {
    // SAFETY: the caller's contract bounds every address.
    unsafe {
        let mut sums = start::<M, V>(&t);
        for f in t.products() {
            let (mut a, mut b) = (f.a, f.b);
            for _ in 0..f.depth {
                let y: [__m512; V] = std::array::from_fn(|v| _mm512_loadu_ps(b.add(v * HALF)));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(i * f.a_row));
                    for v in 0..V {
                        sum[v] = _mm512_fmadd_ps(x, y[v], sum[v]);
                    }
                }
                a = a.wrapping_add(f.a_column);
                b = b.wrapping_add(f.b_row);
            }
        }
        finish(&t, sums);
    }
}

/// # Safety
/// As for [`super::kernel::tile`] in bf16, on a processor with AVX-512-BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile_bf16(rows: usize, t: Tile) {
    // SAFETY: the caller's contract.
    unsafe { by_shape!(rows, t.width, rows_bf16, (t)) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows_bf16<const M: usize, const V: usize>(t: Tile) {
    // SAFETY: the caller's contract bounds every address; the transmutes reinterpret 64 bytes as 64 bytes.
    unsafe {
        let mut sums = start::<M, V>(&t);
        for f in t.products() {
            let (mut a, mut b) = (f.a.cast::<i32>(), f.b);
            for _ in 0..f.depth {
                let y: [__m512bh; V] =
                    std::array::from_fn(|v| std::mem::transmute(_mm512_loadu_ps(b.add(v * HALF))));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(i * f.a_row)));
                    for v in 0..V {
                        sum[v] = _mm512_dpbf16_ps(sum[v], x, y[v]);
                    }
                }
                a = a.wrapping_add(f.a_column);
                b = b.wrapping_add(f.b_row);
            }
        }
        finish(&t, sums);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn start<const M: usize, const V: usize>(t: &Tile) -> [[__m512; V]; M] {
    let mut sums = [[_mm512_setzero_ps(); V]; M];
    if let Some(onto) = t.onto {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's contract bounds the address.
            *sum = std::array::from_fn(|v| unsafe { _mm512_loadu_ps(onto.add(i * t.c_row + v * HALF)) });
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn finish<const M: usize, const V: usize>(t: &Tile, sums: [[__m512; V]; M]) {
    for (i, sum) in sums.iter().enumerate() {
        for (v, sum) in sum.iter().enumerate() {
            // SAFETY: the caller's contract bounds the address.
            unsafe { _mm512_storeu_ps(t.c.add(i * t.c_row + v * HALF), *sum) };
        }
    }
}

/// # Safety
/// As for [`super::kernel::tile`], on a processor with AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_avx2(rows: usize, t: Tile) {
    const BLOCK: usize = ROWS / 2;
    // SAFETY: the caller's contract; each call covers half the rows and half the columns of a whole tile.
    unsafe {
        for first in (0..rows).step_by(BLOCK) {
            for column in (0..t.width).step_by(HALF) {
                let quarter = |f: Factors| Factors { a: f.a.add(first * f.a_row), b: f.b.add(column), ..f };
                let part = Tile {
                    product: quarter(t.product),
                    then: t.then.map(quarter),
                    c: t.c.add(first * t.c_row + column),
                    onto: t.onto.map(|onto| onto.add(first * t.c_row + column)),
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
        if let Some(onto) = t.onto {
            for (i, sum) in sums.iter_mut().enumerate() {
                let onto = onto.add(i * t.c_row);
                *sum = [_mm256_loadu_ps(onto), _mm256_loadu_ps(onto.add(8))];
            }
        }
        for f in t.products() {
            let (mut a, mut b) = (f.a, f.b);
            for _ in 0..f.depth {
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(i * f.a_row));
                    sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                    sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                }
                a = a.wrapping_add(f.a_column);
                b = b.wrapping_add(f.b_row);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            let c = t.c.add(i * t.c_row);
            _mm256_storeu_ps(c, sum[0]);
            _mm256_storeu_ps(c.add(8), sum[1]);
        }
    }
}
