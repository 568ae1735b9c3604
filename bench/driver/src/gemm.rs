//! The fastest matrix products of our kernels.

use std::time::Duration;

use dormant::machine::product;
use serde_json::{Value, json};

use crate::Result;
use crate::request::Products;

/// Rows, inner dimension and columns: two products of the 135M model, and a square one.
const SHAPES: [[usize; 3]; 3] = [[512, 576, 3072], [512, 1536, 576], [1024, 1024, 1024]];

pub(crate) fn answer(request: Products) -> Result<Value> {
    let time = Duration::from_secs_f64(request.seconds.clamp(0.0, 60.0)) / SHAPES.len() as u32;
    let mut fastest = 0.0f64;
    for shape in SHAPES {
        fastest = fastest.max(product(shape, request.precision.resolve(), time)?);
    }
    Ok(json!({ "precision": request.precision.name(), "gflops": fastest / 1e9 }))
}
