//! `dormant bench`: what this machine does.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dormant_model::generate::{GenerateConfig, Request};
use dormant_model::linear::Trained;
use dormant_model::llama::Llama;
use dormant_model::lora::LoraConfig;
use dormant_model::sampler::Sampling;
use dormant_tensor::gemm::{Into, matmul};
use dormant_tensor::isa::Isa;
use dormant_tensor::{Packed, Precision as Products, View};
use dormant_train::objective::sft;
use dormant_train::render::Rendered;
use serde::Serialize;

use crate::base;
use crate::cli::{BenchArgs, GlobalArgs};
use crate::error::Result;
use crate::experiment::Precision;
use crate::interrupt;
use crate::model::{LoadedModel, Loading, ModelFiles};
use crate::ui::Ui;

/// What the command prints as JSON. Rates are the best of the time given.
#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    /// Instruction set of the kernels.
    kernels: &'static str,
    threads: usize,
    /// Products with weights: GFLOP/s at a shape of this model.
    gemm_f32: f64,
    /// The same in bf16, where the processor has it.
    gemm_bf16: Option<f64>,
    /// Gradient of an adapter, tokens of data per second.
    lora: f64,
    /// 32 sequences, new tokens per second.
    sample: f64,
}

pub(super) fn run(args: &BenchArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let weights = base::resolve(&args.model, global.offline, ui)?.path;
    let files = ModelFiles { weights, adapter: None };
    let mut model = LoadedModel::load(&files, Precision::Auto, Trained::Lora, Loading::Merge)?.llama;
    let time = Duration::from_secs_f64(args.seconds.clamp(0.1, 600.0));
    let sample = sampling(&model, time)?;
    model.add_lora(&LoraConfig::default(), 0)?;
    let outcome = Outcome {
        schema_version: 1,
        kernels: Isa::current().name(),
        threads: rayon::current_num_threads(),
        gemm_f32: gemm(&model, Products::F32, time)?,
        gemm_bf16: Isa::current().has_bf16().then(|| gemm(&model, Products::Bf16, time)).transpose()?,
        lora: training(&mut model, time)?,
        sample,
    };
    ui.result(&outcome, text);
    Ok(())
}

/// Amount of work per second in the fastest of the runs that fit into `time`; at least one.
fn best(work: f64, time: Duration, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    let mut fastest = f64::INFINITY;
    while fastest.is_infinite() || begun.elapsed() < time {
        interrupt::check()?;
        let start = Instant::now();
        run()?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok(work / fastest)
}

/// Gate and up projection of 512 rows.
fn gemm(model: &Llama, products: Products, time: Duration) -> Result<f64> {
    let (rows, inner, outer) = (512, model.config.hidden_size, 2 * model.config.intermediate_size);
    let weight = Packed::new(View::new(&vec![0.5; inner * outer], inner, outer), products);
    let (a, mut c) = (vec![0.25; rows * inner], vec![0.0; rows * outer]);
    best(2e-9 * (rows * inner * outer) as f64, time, || {
        matmul(View::new(&a, rows, inner), &weight, &mut c, outer, Into::Set);
        black_box(&c);
        Ok(())
    })
}

/// Eight rows of 64 tokens, half of them trained; different tokens, so that nothing is shared.
fn training(model: &mut Llama, time: Duration) -> Result<f64> {
    let rows: Vec<Rendered> = (0..8)
        .map(|row| Rendered { id: row.to_string(), tokens: tokens(model, row, 64), prompt: 32 })
        .collect();
    let rows: Vec<&Rendered> = rows.iter().collect();
    let rate = best(8.0 * 64.0, time, || Ok(sft::loss(model, &rows).map(|_| ())?))?;
    model.clear_gradients();
    Ok(rate)
}

/// 32 prompts of 32 tokens, replies of 32.
fn sampling(model: &Llama, time: Duration) -> Result<f64> {
    let config = GenerateConfig::new(32, Sampling::temperature(1.0), Vec::new());
    let requests: Vec<Request> =
        (0..32).map(|seed| Request { prompt: tokens(model, seed as usize, 32), seed }).collect();
    best(32.0 * 32.0, time, || {
        model.generate(&requests, &config, &|_, _| false, &mut |_, _| true)?;
        Ok(())
    })
}

fn tokens(model: &Llama, row: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((row * 7919 + i * 104_729 + 1) % model.config.vocab_size) as u32).collect()
}

fn text(outcome: &Outcome) -> String {
    let mut lines = vec![
        format!("kernels    {}, {} threads", outcome.kernels, outcome.threads),
        format!("GEMM f32   {:.0} GFLOP/s", outcome.gemm_f32),
    ];
    lines.extend(outcome.gemm_bf16.map(|rate| format!("GEMM bf16  {rate:.0} GFLOP/s")));
    lines.push(format!("LoRA       {:.0} tokens of data per second (rank 16, 8 rows of 64)", outcome.lora));
    lines.push(format!(
        "sampling   {:.0} new tokens per second (32 sequences, 32 + 32 tokens)",
        outcome.sample
    ));
    lines.join("\n")
}
