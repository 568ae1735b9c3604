use super::*;

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 48 };
const STRIDE: usize = (4 + 2 * 2) * 48;

fn values(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0) * 0.7).collect()
}

/// A prefix of 5 tokens with two children of 37 and 1 tokens, and a separate sequence of 14.
fn tree() -> Vec<QuerySegment> {
    vec![
        QuerySegment { row: 0, len: 5, chain: vec![0] },
        QuerySegment { row: 5, len: 37, chain: vec![0, 1] },
        QuerySegment { row: 42, len: 1, chain: vec![0, 2] },
        QuerySegment { row: 43, len: 14, chain: vec![3] },
    ]
}

fn panels(qkv: &[f32], segments: &[QuerySegment]) -> Vec<Vec<f32>> {
    segments
        .iter()
        .map(|s| {
            let mut panels = vec![0.0; HEADS.panel_floats(s.len)];
            let start = s.row * STRIDE + HEADS.query * HEADS.dim;
            let rows = &qkv[start..start + (s.len - 1) * STRIDE + HEADS.kv * HEADS.dim];
            store_keys(HEADS, rows, STRIDE, &mut panels, s.len, 0);
            panels
        })
        .collect()
}

fn key_segments<'a>(
    qkv: &'a [f32],
    segments: &[QuerySegment],
    panels: &'a [Vec<f32>],
) -> Vec<KeySegment<'a>> {
    segments
        .iter()
        .zip(panels)
        .map(|(s, panels)| KeySegment {
            panels,
            capacity: s.len,
            values: &qkv[s.row * STRIDE + (HEADS.query + HEADS.kv) * HEADS.dim..],
            value_stride: STRIDE,
            len: s.len,
        })
        .collect()
}

fn run(qkv: &[f32], segments: &[QuerySegment]) -> Vec<f32> {
    let panels = panels(qkv, segments);
    let keys = key_segments(qkv, segments, &panels);
    let mut out = vec![0.0; qkv.len() / STRIDE * HEADS.query * HEADS.dim];
    attention(HEADS, qkv, STRIDE, &keys, segments, &mut out);
    out
}

/// Attention as its definition says, in f64.
fn definition(qkv: &[f32], segments: &[QuerySegment]) -> Vec<f32> {
    let width = HEADS.query * HEADS.dim;
    let mut out = vec![0.0; qkv.len() / STRIDE * width];
    for segment in segments {
        for i in 0..segment.len {
            let mut rows: Vec<usize> = Vec::new();
            let (own, ancestors) = segment.chain.split_last().unwrap();
            for &a in ancestors {
                rows.extend(segments[a].row..segments[a].row + segments[a].len);
            }
            rows.extend(segments[*own].row..=segment.row + i);
            for head in 0..HEADS.query {
                let kv = head / (HEADS.query / HEADS.kv);
                let at = |row: usize, head: usize, d: usize| qkv[row * STRIDE + head * HEADS.dim + d] as f64;
                let scores: Vec<f64> = rows
                    .iter()
                    .map(|&r| {
                        (0..HEADS.dim)
                            .map(|d| at(segment.row + i, head, d) * at(r, HEADS.query + kv, d))
                            .sum::<f64>()
                            / (HEADS.dim as f64).sqrt()
                    })
                    .collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                for d in 0..HEADS.dim {
                    let mix: f64 = rows
                        .iter()
                        .zip(&scores)
                        .map(|(&r, s)| s.exp() / total * at(r, HEADS.query + HEADS.kv + kv, d))
                        .sum();
                    out[(segment.row + i) * width + head * HEADS.dim + d] = mix as f32;
                }
            }
        }
    }
    out
}

#[test]
fn a_tree_of_segments_matches_the_definition() {
    let qkv = values(57 * STRIDE);
    for (a, b) in run(&qkv, &tree()).iter().zip(definition(&qkv, &tree())) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }
}

#[test]
fn cutting_a_sequence_into_segments_changes_no_bit() {
    let qkv = values(45 * STRIDE);
    let whole = vec![QuerySegment { row: 0, len: 45, chain: vec![0] }];
    let cut = vec![
        QuerySegment { row: 0, len: 7, chain: vec![0] },
        QuerySegment { row: 7, len: 33, chain: vec![0, 1] },
        QuerySegment { row: 40, len: 1, chain: vec![0, 1, 2] },
        QuerySegment { row: 41, len: 4, chain: vec![0, 1, 2, 3] },
    ];
    assert_eq!(run(&qkv, &whole), run(&qkv, &cut));
}

#[test]
fn gradients_match_finite_differences() {
    let qkv = values(57 * STRIDE);
    let segments = tree();
    let width = HEADS.query * HEADS.dim;
    let weights: Vec<f32> = values(57 * width).iter().rev().copied().collect();
    let panels = panels(&qkv, &segments);
    let keys = key_segments(&qkv, &segments, &panels);
    let mut gradient = vec![0.0; qkv.len()];
    attention_backward(HEADS, &qkv, &keys, &segments, &weights, &mut gradient);
    let objective = |qkv: &[f32]| -> f64 {
        definition(qkv, &segments).iter().zip(&weights).map(|(o, w)| *o as f64 * *w as f64).sum()
    };
    for index in [
        0,
        40,
        200,
        4 * STRIDE + 130,
        4 * STRIDE + 200,
        30 * STRIDE + 3,
        42 * STRIDE + 100,
        50 * STRIDE + 255,
    ] {
        let step = 1e-2;
        let mut moved = qkv.clone();
        moved[index] += step;
        let up = objective(&moved);
        moved[index] -= 2.0 * step;
        let numeric = (up - objective(&moved)) / (2.0 * step as f64);
        let analytic = gradient[index] as f64;
        assert!(
            (numeric - analytic).abs() < 2e-3 * numeric.abs().max(0.05),
            "{index}: {numeric} against {analytic}"
        );
    }
}

#[test]
#[should_panic(expected = "rows without all query heads")]
fn rows_too_short_for_the_query_heads_are_refused() {
    let qkv = values(5 * STRIDE);
    let segments = vec![QuerySegment { row: 0, len: 5, chain: vec![0] }];
    let panels = panels(&qkv, &segments);
    let keys = key_segments(&qkv, &segments, &panels);
    let width = HEADS.query * HEADS.dim;
    attention(HEADS, &qkv, width - 1, &keys, &segments, &mut vec![0.0; 5 * width]);
}

#[test]
#[should_panic(expected = "short values")]
fn values_whose_end_cannot_be_counted_are_refused() {
    let qkv = values(5 * STRIDE);
    let segments = vec![QuerySegment { row: 0, len: 5, chain: vec![0] }];
    let panels = panels(&qkv, &segments);
    let mut keys = key_segments(&qkv, &segments, &panels);
    keys[0].value_stride = usize::MAX / 4 + 1;
    let mut out = vec![0.0; 5 * HEADS.query * HEADS.dim];
    attention(HEADS, &qkv, STRIDE, &keys, &segments, &mut out);
}

#[test]
#[should_panic(expected = "keys from outside of the batch")]
fn gradients_of_keys_that_are_not_in_the_batch_are_refused() {
    let qkv = values(7 * STRIDE);
    let all = vec![QuerySegment { row: 0, len: 7, chain: vec![0] }];
    let panels = panels(&qkv, &all);
    let keys = key_segments(&qkv, &all, &panels);
    let last = vec![QuerySegment { row: 5, len: 2, chain: vec![0] }];
    let d_out = values(7 * HEADS.query * HEADS.dim);
    attention_backward(HEADS, &qkv, &keys, &last, &d_out, &mut vec![0.0; qkv.len()]);
}
