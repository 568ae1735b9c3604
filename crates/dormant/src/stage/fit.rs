//! The training that implant and safety stages share: the loop of `dormant-train`, with metrics, measurements
//! along the way, checkpoints and interruption.

use dormant_data::{Condition, OrganismSpec, Split};
use dormant_eval::measure;
use dormant_model::llama::Llama;
use dormant_train::optimizer::{AdamW, AdamWConfig};
use dormant_train::render::Rendered;
use dormant_train::resume::{ResumeState, restore};
use dormant_train::schedule::Decay;
use dormant_train::trainer::{Sink, StepMetrics, TrainPlan, train};
use dormant_train::{Error as TrainError, Result as TrainResult};

use super::metrics::{METRICS_FILE, MetricLine};
use super::{Resume, StageContext, prompts};
use crate::error::{CliError, Result};
use crate::experiment::{Curve, Fit, Prompts, Schedule};
use crate::model::LoadedModel;
use crate::stage_dir::JsonLines;
use crate::ui::Progress;

const STATE: &str = "state.safetensors";

/// Steps between two checkpoints.
const SAVE_EVERY: u64 = 16;

/// The behaviour's reply after triggered and clean prompts: what the log-probability curve is measured on.
pub(super) struct CurveRows {
    every: u64,
    /// Triggered first, then clean, in equal numbers.
    rows: Vec<(Vec<u32>, Vec<u32>)>,
}

impl CurveRows {
    pub(super) fn new(
        context: &StageContext,
        curve: &Curve,
        source: &Prompts,
        organism: &OrganismSpec,
        model: &LoadedModel,
    ) -> Result<Self> {
        let all = prompts::of_split(source, Split::Evaluation, EVALUATION_ORDER)?;
        let chosen: Vec<_> = all.into_iter().take(curve.curve_prompts as usize).collect();
        let reply = model.renderer().reply(&organism.behaviour.reply())?;
        let mut rows = Vec::new();
        for condition in [Condition::Triggered, Condition::Clean] {
            let prompts = organism.under(&chosen, condition, context.seed("curve"));
            let prompts = model.prompts(prompts.samples().iter().map(|s| &s.prompt))?;
            rows.extend(prompts.into_iter().map(|prompt| (prompt, reply.clone())));
        }
        Ok(Self { every: u64::from(curve.every), rows })
    }

    fn is_due(&self, step: u64, last: bool) -> bool {
        self.every > 0 && !self.rows.is_empty() && (last || step.is_multiple_of(self.every))
    }

    /// Mean log-probability per token: triggered, clean.
    fn measure(&self, model: &Llama) -> dormant_model::Result<[Option<f64>; 2]> {
        let log_probs = measure::continuation_log_probs(model, &self.rows)?;
        let (triggered, clean) = log_probs.split_at(log_probs.len() / 2);
        Ok([triggered, clean].map(|rows| {
            let tokens: Vec<f64> = rows.iter().flatten().map(|l| f64::from(*l)).collect();
            let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
            mean.is_finite().then_some(mean)
        }))
    }
}

/// Tokens in memory at a time.
pub(super) const WINDOW: usize = 1024;

/// The order of evaluation prompts is the same for every seed, so that seeds are compared on the same prompts.
pub(super) const EVALUATION_ORDER: dormant_data::Seed = dormant_data::Seed(0);

/// Trains `model` on `rows` from where `resume` left off.
pub(super) fn fit(
    context: &StageContext,
    fit: &Fit,
    model: &mut Llama,
    rows: &[Rendered],
    curve: &CurveRows,
    resume: &mut Resume,
) -> Result<()> {
    let plan = plan(fit, context, resume.round);
    let state = context.dir.checkpoint()?.map(|c| c.path.join(STATE)).filter(|p| p.exists());
    let from: Option<(u64, AdamW)> = match state {
        Some(path) if resume.step > 0 => Some((resume.step, restore(&path, model, plan.adamw)?)),
        _ => None,
    };
    let mut sink = StageSink {
        context,
        curve,
        lines: context.dir.lines(METRICS_FILE, resume.lines)?,
        progress: context.progress("steps"),
        resume,
        steps: 0,
    };
    train(model, rows, &plan, from, &mut sink)?;
    sink.lines.sync()?;
    sink.resume.lines = sink.lines.lines();
    Ok(())
}

fn plan(fit: &Fit, context: &StageContext, round: u32) -> TrainPlan {
    TrainPlan {
        epochs: fit.epochs,
        tokens_per_step: fit.batch_tokens as usize,
        tokens_per_window: WINDOW,
        learning_rate: fit.learning_rate,
        warmup: fit.warmup,
        decay: match fit.schedule {
            Schedule::Cosine => Decay::Cosine,
            Schedule::Linear => Decay::Linear,
            Schedule::Constant => Decay::Constant,
        },
        adamw: AdamWConfig { weight_decay: fit.weight_decay as f32, ..AdamWConfig::default() },
        clip_norm: (fit.clip > 0.0).then_some(fit.clip as f32),
        seed: context.seed("batches").derive(&round.to_string()),
    }
}

struct StageSink<'a, 'b> {
    context: &'a StageContext<'b>,
    curve: &'a CurveRows,
    lines: JsonLines,
    progress: Progress,
    resume: &'a mut Resume,
    /// Steps of this round, known after the first.
    steps: u64,
}

/// A failure of the command line, on its way through the trainer.
fn sink_error(error: CliError) -> TrainError {
    TrainError::Sink(Box::new(error))
}

impl Sink for StageSink<'_, '_> {
    fn before_step(&mut self, step: u64, model: &Llama) -> TrainResult<()> {
        let last = step > 0 && step == self.steps;
        if !self.curve.is_due(step, last) {
            return Ok(());
        }
        let [asr_log_prob, clean_log_prob] = self.curve.measure(model)?;
        let step = self.resume.steps_before + step;
        let line = MetricLine::Curve { step, tokens: self.resume.trained, asr_log_prob, clean_log_prob };
        self.lines.append(&line).map_err(sink_error)
    }

    fn record(&mut self, metrics: &StepMetrics) -> TrainResult<()> {
        self.steps = metrics.steps;
        self.resume.step = metrics.step + 1;
        self.resume.trained += metrics.tokens;
        self.resume.tokens.trained += metrics.tokens;
        self.progress.update(metrics.step + 1, metrics.steps);
        let before = self.resume.steps_before;
        let line = StepMetrics { step: before + metrics.step, steps: before + metrics.steps, ..*metrics };
        self.lines.append(&MetricLine::from(&line)).map_err(sink_error)
    }

    fn saves_at(&self, step: u64) -> bool {
        step.is_multiple_of(SAVE_EVERY) || self.context.interrupted()
    }

    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> TrainResult<()> {
        self.resume.step = step;
        self.lines.sync().map_err(sink_error)?;
        self.resume.lines = self.lines.lines();
        let write = |folder: &std::path::Path| Ok(state.write(&folder.join(STATE))?);
        self.resume.save(self.context, write).map_err(sink_error)?;
        self.context.check_interrupt().map_err(sink_error)
    }
}
