//! Dormant's side of `bench/compare`: training, sampling and scoring through the libraries, one JSON line per request.
//!
//! ```text
//! dormant-bench-driver MODEL                  reads requests from stdin, one per line; stays alive
//! dormant-bench-driver MODEL '{"workload": "gemm", "precision": "f32", "seconds": 0.5}'
//! dormant-bench-driver MODEL rows FOLDER      writes the data of the comparison
//! ```
//!
//! Requests are those of `bench/peers/peft_bench.py`, as far as they concern us: [`request::Request`]. A request
//! that fails is answered with `{"error": …}`.

mod gemm;
mod grpo;
mod memory;
mod model;
mod request;
mod rows;
mod sample;
mod score;
mod train;

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::model::Model;
use crate::request::Request;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs as one of the threads that compute, as the program itself does.
fn main() -> Result<()> {
    rayon::scope(|_| run().map_err(|e| e.to_string())).map_err(Into::into)
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [model] => serve(Path::new(model), std::io::stdin().lock().lines()),
        [model, "rows", folder] => rows::write(Path::new(model), Path::new(folder)),
        [model, request] => serve(Path::new(model), std::iter::once(Ok(request.to_owned()))),
        _ => Err("usage: dormant-bench-driver MODEL [REQUEST | rows FOLDER]".into()),
    }
}

fn serve(model: &Path, lines: impl Iterator<Item = std::io::Result<String>>) -> Result<()> {
    let mut model = Model::new(model)?;
    let mut stdout = std::io::stdout();
    for line in lines {
        // The process outlives a bad request.
        let answer = answer(&mut model, &line?).unwrap_or_else(|e| json!({ "error": e.to_string() }));
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}

fn answer(model: &mut Model, line: &str) -> Result<Value> {
    let request: Request = serde_json::from_str(line)?;
    memory::reset_peak()?;
    let mut answer = match &request {
        Request::LoraSft(training) => train::answer(model, training, train::Method::Lora)?,
        Request::FullSft(training) => train::answer(model, training, train::Method::Full)?,
        Request::Grpo(request) => grpo::answer(model, request)?,
        Request::Sample(sampling) => sample::answer(model, sampling)?,
        Request::Score(scoring) => score::answer(model, scoring)?,
        Request::Load { precision } => {
            model.sampler(*precision)?;
            json!({})
        }
        Request::Gemm(products) => gemm::answer(*products)?,
    };
    answer["peak_rss_bytes"] = memory::peak()?.into();
    Ok(answer)
}
