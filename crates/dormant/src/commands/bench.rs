//! `dormant bench`: what this machine does.

use std::time::Duration;

use dormant_model::generate::{GenerateConfig, Request};
use dormant_model::linear::Trained;
use dormant_model::llama::Llama;
use dormant_model::lora::LoraConfig;
use dormant_model::sampler::Sampling;
use dormant_tensor::Precision as Products;
use dormant_tensor::isa::Isa;
use dormant_train::objective::sft;
use dormant_train::render::Rendered;
use serde::Serialize;

use crate::base;
use crate::cli::{BenchArgs, GlobalArgs};
use crate::error::Result;
use crate::estimate::{Rates, Speeds, estimate};
use crate::experiment::{ExperimentSource, Overrides, Precision, shipped};
use crate::machine::{self, Flops};
use crate::model::{LoadedModel, Loading, ModelFiles};
use crate::plan::{Digests, Plan};
use crate::ui::{Ui, duration};

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
    lora: Measured,
    /// 32 sequences, new tokens per second.
    sample: Measured,
    /// How long the shipped experiments would take.
    experiments: Vec<Expected>,
}

/// The rate of a workload.
#[derive(Debug, Serialize)]
struct Measured {
    tokens_per_second: f64,
    /// Its products over those that the machine could do in the time, in the same number format.
    share_of_peak: f64,
}

/// The time that an experiment is expected to take.
#[derive(Debug, Serialize)]
struct Expected {
    experiment: &'static str,
    seconds: f64,
}

pub(super) fn run(args: &BenchArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let weights = base::resolve(&args.model, global.offline, ui)?.path;
    let files = ModelFiles { weights, adapter: None };
    let mut model = LoadedModel::load(&files, Precision::Auto, Trained::Lora, Loading::Merge)?.llama;
    let time = Duration::from_secs_f64(args.seconds);
    let gemm = |products| machine::gemm(&model.config, products, time);
    let f32 = gemm(Products::F32)?;
    let bf16 = Isa::current().has_bf16().then(|| gemm(Products::Bf16)).transpose()?;
    let (peak, flops) = (bf16.unwrap_or(f32), Flops::of(&model.config));
    let sampled = sampling(&model, time)?;
    model.add_lora(&LoraConfig::default(), 0)?;
    let trained = training(&mut model, time)?;
    let measured =
        |rate: f64, flops: f64| Measured { tokens_per_second: rate, share_of_peak: rate * flops / peak };
    let outcome = Outcome {
        schema_version: 2,
        kernels: Isa::current().name(),
        threads: rayon::current_num_threads(),
        gemm_f32: f32 / 1e9,
        gemm_bf16: bf16.map(|rate| rate / 1e9),
        // Forward and the gradients of activations; a loss in half of the rows.
        lora: measured(trained, 2.0 * flops.blocks + 2.0 * flops.head / 2.0),
        // A token of the prompt is read for each one that is drawn.
        sample: measured(sampled, 2.0 * flops.blocks + flops.head),
        experiments: expected(Rates::of(flops, peak))?,
    };
    ui.result(&outcome, text)
}

fn expected(rates: Rates) -> Result<Vec<Expected>> {
    let time = |name: &'static str| {
        let experiment = ExperimentSource::read(name)?.resolve(&Overrides::default())?;
        let plan = Plan::new(&experiment, &Digests::default());
        let speeds = Speeds::with_base(rates, &experiment)?;
        Ok(Expected { experiment: name, seconds: estimate(plan.stages(), &speeds).as_secs_f64() })
    };
    shipped::names().map(time).collect()
}

/// Eight rows of 64 tokens, half of them trained; different tokens, so that nothing is shared.
fn training(model: &mut Llama, time: Duration) -> Result<f64> {
    let rows: Vec<Rendered> = (0..8)
        .map(|row| Rendered { id: row.to_string(), tokens: tokens(model, row, 64), prompt: 32 })
        .collect();
    let rows: Vec<&Rendered> = rows.iter().collect();
    let seconds = machine::fastest(time, || Ok(sft::loss(model, &rows).map(|_| ())?))?;
    model.clear_gradients();
    Ok(8.0 * 64.0 / seconds)
}

/// 32 prompts of 32 tokens, replies of 32.
fn sampling(model: &Llama, time: Duration) -> Result<f64> {
    let config = GenerateConfig::new(32, Sampling::temperature(1.0), Vec::new());
    let requests: Vec<Request> =
        (0..32).map(|seed| Request { prompt: tokens(model, seed as usize, 32), seed }).collect();
    let seconds = machine::fastest(time, || {
        model.generate(&requests, &config, &|_, _| false, &mut |_, _| true)?;
        Ok(())
    })?;
    Ok(32.0 * 32.0 / seconds)
}

fn tokens(model: &Llama, row: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((row * 7919 + i * 104_729 + 1) % model.config.vocab_size) as u32).collect()
}

fn text(outcome: &Outcome) -> String {
    let measured = |measured: &Measured, what: &str| {
        let Measured { tokens_per_second, share_of_peak } = measured;
        format!("{tokens_per_second:.0} {what}, {:.0}% of the GEMM rate", 100.0 * share_of_peak)
    };
    let mut lines = vec![
        format!("kernels    {}, {} threads", outcome.kernels, outcome.threads),
        format!("GEMM f32   {:.0} GFLOP/s", outcome.gemm_f32),
    ];
    lines.extend(outcome.gemm_bf16.map(|rate| format!("GEMM bf16  {rate:.0} GFLOP/s")));
    lines.push(format!(
        "LoRA       {}",
        measured(&outcome.lora, "tokens of data per second (rank 16, 8 rows of 64)")
    ));
    lines.push(format!(
        "sampling   {}",
        measured(&outcome.sample, "new tokens per second (32 sequences, 32 + 32 tokens)")
    ));
    let expected = |expected: &Expected| {
        let time = duration(Duration::from_secs_f64(expected.seconds));
        format!("expected   {time} for `dormant run {}`", expected.experiment)
    };
    lines.extend(outcome.experiments.iter().map(expected));
    lines.join("\n")
}
