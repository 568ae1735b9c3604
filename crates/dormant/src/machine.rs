//! What this machine can do: the rate of matrix products, and what share of it whole workloads reach.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dormant_model::config::ModelConfig;
use dormant_tensor::gemm::{Into, matmul};
use dormant_tensor::{Packed, Precision, View};

use crate::error::Result;
use crate::interrupt;

/// Floating-point operations per token of a model's products with weights; a multiply-add counts as two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flops {
    /// Through all blocks, once.
    pub blocks: f64,
    /// Through the unembedding, once.
    pub head: f64,
}

impl Flops {
    /// Those of a forward pass of `config`.
    pub fn of(config: &ModelConfig) -> Self {
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads;
        let block = d * heads * config.head_dim + 3 * d * ff;
        Self {
            blocks: 2.0 * (block * config.num_hidden_layers) as f64,
            head: 2.0 * (d * config.vocab_size) as f64,
        }
    }
}

/// Rate of products of 512 rows with the weights of a feed-forward layer of `config`, in FLOP per second: the best
/// within `time`.
///
/// # Errors
/// [`crate::error::ErrorKind::Interrupted`].
pub fn gemm(config: &ModelConfig, precision: Precision, time: Duration) -> Result<f64> {
    product([512, config.hidden_size, 2 * config.intermediate_size], precision, time)
}

/// Rate of products of `[rows, inner]` with `[inner, columns]`, in FLOP per second: the best within `time`.
///
/// # Errors
/// [`crate::error::ErrorKind::Interrupted`].
pub fn product([rows, inner, columns]: [usize; 3], precision: Precision, time: Duration) -> Result<f64> {
    let weight = Packed::new(View::new(&vec![0.5; inner * columns], inner, columns), precision);
    let (a, mut c) = (vec![0.25; rows * inner], vec![0.0; rows * columns]);
    let seconds = fastest(time, || {
        matmul(View::new(&a, rows, inner), &weight, &mut c, columns, Into::Set);
        black_box(&c);
        Ok(())
    })?;
    Ok(2.0 * (rows * inner * columns) as f64 / seconds)
}

/// Seconds of the fastest of the runs that fit into `time`; at least one.
///
/// # Errors
/// Those of a run; [`crate::error::ErrorKind::Interrupted`].
pub fn fastest(time: Duration, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let (begun, mut fastest) = (Instant::now(), f64::INFINITY);
    while fastest.is_infinite() || begun.elapsed() < time {
        interrupt::check()?;
        let start = Instant::now();
        run()?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok(fastest)
}
