use proptest::prelude::*;

use super::*;

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

/// The definition: one chain of fused multiply-adds per element.
fn reference(a: View<'_>, b: &[f32], n: usize, c: &mut [f32], add: bool) {
    for i in 0..a.rows {
        for j in 0..n {
            let start = if add { c[i * n + j] } else { 0.0 };
            c[i * n + j] = (0..a.columns).fold(start, |sum, p| a.at(i, p).mul_add(b[p * n + j], sum));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_kernel_gives_the_bits_of_the_definition(m in 1usize..40, k in 1usize..70, n in 1usize..100, add: bool, transposed: bool) {
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let view = if transposed { View::new(&a, k, m).transposed() } else { View::new(&a, m, k) };
        let packed = Packed::new(View::new(&b, k, n), Precision::F32);
        let mut expected = values(m * n, 3);
        let mut actual = expected.clone();
        let onto = actual.clone();
        reference(view, &b, n, &mut expected, add);
        matmul(view, &packed, &mut actual, n, if add { Into::Add } else { Into::Set });
        prop_assert_eq!(&actual, &expected);
        actual.fill(f32::NAN);
        matmul(view, &packed, &mut actual, n, if add { Into::Onto(&onto) } else { Into::Set });
        prop_assert_eq!(&actual, &expected);
    }

    #[test]
    fn corrections_are_products_of_their_own(
        m in 1usize..30,
        k in 1usize..40,
        n in 1usize..130,
        r in 1usize..20,
        start in 0usize..4,
        cut in 0usize..40,
        bf16: bool,
    ) {
        let start = (start * PANEL).min(n - 1);
        let width = (n - start).saturating_sub(cut).max(1);
        let (a, b, h, up) = (values(m * k, 1), values(k * n, 2), values(m * r, 3), values(r * width, 4));
        let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
        let (a, b) = (View::new(&a, m, k), Packed::new(View::new(&b, k, n), precision));
        let (h, up) = (View::new(&h, m, r), Packed::new(View::new(&up, r, width), precision));
        let (mut apart, mut together) = (values(m * n, 5), values(m * n, 5));
        matmul(a, &b, &mut apart, n, Into::Add);
        matmul(h, &up, &mut apart[start..], n, Into::Add);
        matmul_with(a, &b, &[Correction { a: h, b: &up, start }], &mut together, n, Into::Add);
        prop_assert_eq!(apart, together);
    }

    #[test]
    fn narrow_products_stay_within_the_rounding_of_bf16(
        m in 1usize..40,
        k in 1usize..70,
        n in 1usize..70,
        turned_a: bool,
        turned_b: bool,
    ) {
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let view = |x, rows, columns, turned| {
            if turned { View::new(x, columns, rows).transposed() } else { View::new(x, rows, columns) }
        };
        let (a, b) = (view(&a, m, k, turned_a), view(&b, k, n, turned_b));
        let flat: Vec<f32> = (0..k).flat_map(|p| (0..n).map(move |j| b.at(p, j))).collect();
        let packed = Packed::new(b, Precision::Bf16);
        let mut expected = vec![0.0; m * n];
        let mut actual = vec![0.0; m * n];
        reference(a, &flat, n, &mut expected, false);
        matmul(a, &packed, &mut actual, n, Into::Set);
        for (x, y) in actual.iter().zip(&expected) {
            prop_assert!((x - y).abs() < 0.01 * (k as f32).sqrt() + 1e-3, "{x} against {y}");
        }
    }
}

#[test]
fn a_column_has_the_values_that_were_packed() {
    for (rows, columns) in [(1, 1), (7, 33), (8, 70)] {
        let b: Vec<f32> =
            values(rows * columns, 3).iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = Packed::new(View::new(&b, rows, columns), precision);
            for column in 0..columns {
                let mut out = vec![0.0; rows];
                packed.column(column, &mut out);
                assert!(out.iter().enumerate().all(|(row, x)| *x == b[row * columns + column]));
            }
        }
    }
}

#[test]
fn a_turned_matrix_gives_the_products_of_the_transposed_one() {
    for (k, n) in [(5, 3), (64, 96), (33, 70), (7, 40)] {
        for precision in [Precision::F32, Precision::Bf16] {
            let (a, b) = (values(9 * n, 1), values(k * n, 2));
            let b = View::new(&b, k, n);
            let (mut expected, mut actual) = (vec![0.0; 9 * k], vec![0.0; 9 * k]);
            matmul(View::new(&a, 9, n), &Packed::new(b.transposed(), precision), &mut expected, k, Into::Set);
            matmul(View::new(&a, 9, n), &Packed::new(b, precision).turned(), &mut actual, k, Into::Set);
            assert_eq!(actual, expected, "{k} {n} {precision:?}");
        }
    }
}

#[test]
fn a_skinny_product_is_the_transposed_one() {
    for (t, m, n) in [(7, 3, 5), (40, 16, 64), (33, 48, 40), (1, 25, 17)] {
        let (a, b) = (values(t * (m + 2), 1), values(t * (n + 3), 2));
        let (a, b) = (View::strided(&a, t, m, m + 2), View::strided(&b, t, n, n + 3));
        let mut expected = values(m * n, 3);
        let mut actual = expected.clone();
        matmul(a.transposed(), &Packed::new(b, Precision::F32), &mut expected, n, Into::Add);
        add_skinny(a, b, &mut actual);
        assert_eq!(actual, expected, "{t} {m} {n}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx2_avx512_and_portable_tiles_have_equal_bits() {
    use kernel::{HALF, ROWS, tile_portable};
    let (depth, a, b) = (77, values(ROWS * 77, 5), values(77 * PANEL, 6));
    let (a, b) = (a.as_ptr(), b.as_ptr());
    let product = Factors { depth, a, a_row: depth, a_column: 1, b, b_row: PANEL };
    let run_width = |width: usize, kernel: unsafe fn(usize, Tile)| {
        let mut c = values(ROWS * PANEL, 7);
        let t = Tile {
            width,
            product,
            then: Some(Factors { depth: 9, ..product }),
            c: c.as_mut_ptr(),
            c_row: PANEL,
            onto: Some(c.as_ptr()),
        };
        // SAFETY: the buffers have the shapes that the tile states.
        unsafe { kernel(ROWS, t) };
        c
    };
    let run = |kernel: unsafe fn(usize, Tile)| [HALF, PANEL].map(|width| run_width(width, kernel));
    let expected = run(tile_portable);
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        assert_eq!(run(|rows, t| unsafe { x86::tile_avx2(rows, t) }), expected);
    }
    if std::arch::is_x86_feature_detected!("avx512f") {
        assert_eq!(run(|rows, t| unsafe { x86::tile_avx512(rows, t) }), expected);
    }
}

#[test]
fn a_row_does_not_depend_on_the_other_rows() {
    let (k, n) = (96, 64);
    let (a, b) = (values(20 * k, 1), values(k * n, 2));
    for precision in [Precision::F32, Precision::Bf16] {
        let packed = Packed::new(View::new(&b, k, n), precision);
        let mut together = vec![0.0; 20 * n];
        matmul(View::new(&a, 20, k), &packed, &mut together, n, Into::Set);
        for i in 0..20 {
            let mut alone = vec![0.0; n];
            matmul(View::new(&a[i * k..], 1, k), &packed, &mut alone, n, Into::Set);
            assert_eq!(alone, together[i * n..(i + 1) * n]);
        }
    }
}

#[test]
#[should_panic(expected = "too few elements")]
fn a_view_whose_end_cannot_be_counted_is_refused() {
    View::strided(&[0.0; 4], usize::MAX / 2 + 2, 1, 2);
}
