//! The fastest matrix products of our kernels.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dormant_tensor::gemm::{Into, matmul};
use dormant_tensor::{Packed, Precision, View};
use serde_json::{Value, json};

use crate::request::Products;

/// Rows, inner dimension and columns: two products of the 135M model, and a square one.
const SHAPES: [[usize; 3]; 3] = [[512, 576, 3072], [512, 1536, 576], [1024, 1024, 1024]];

pub(crate) fn answer(request: Products) -> Value {
    let time = Duration::from_secs_f64(request.seconds.clamp(0.0, 60.0)) / SHAPES.len() as u32;
    let rates = SHAPES.map(|shape| rate(shape, request.precision.resolve(), time));
    json!({
        "precision": request.precision.name(),
        "gflops": rates.into_iter().fold(0.0, f64::max),
    })
}

/// Billions of operations per second in the fastest run within `time`; at least one run.
fn rate([rows, inner, columns]: [usize; 3], precision: Precision, time: Duration) -> f64 {
    let weight = Packed::new(View::new(&vec![0.5; inner * columns], inner, columns), precision);
    let (a, mut c) = (vec![0.25; rows * inner], vec![0.0; rows * columns]);
    let begun = Instant::now();
    let mut fastest = f64::INFINITY;
    while fastest.is_infinite() || begun.elapsed() < time {
        let start = Instant::now();
        matmul(View::new(&a, rows, inner), &weight, &mut c, columns, Into::Set);
        black_box(&c);
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    2e-9 * (rows * inner * columns) as f64 / fastest
}
