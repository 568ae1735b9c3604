//! What every training stage does along its loop: metrics, measurements, checkpoints and interruption.

use std::path::PathBuf;

use dormant_model::llama::Llama;
use dormant_train::pairs::PairMetrics;
use dormant_train::resume::ResumeState;
use dormant_train::trainer::{Sink, StepMetrics};
use dormant_train::{Error as TrainError, Result as TrainResult};

use super::curve::{CurvePoint, CurveRows};
use super::metrics::{METRICS_FILE, MetricLine};
use super::{Resume, StageContext};
use crate::error::{CliError, Result};
use crate::stage_dir::JsonLines;
use crate::ui::Progress;

const STATE: &str = "state.safetensors";

/// Steps between two checkpoints.
const SAVE_EVERY: u64 = 16;

/// The saved state of the step that `resume` goes on with, unless that is the first.
pub(super) fn saved_state(context: &StageContext, resume: &Resume) -> Result<Option<PathBuf>> {
    let state = context.dir.checkpoint()?.map(|checkpoint| checkpoint.path.join(STATE));
    Ok(state.filter(|path| resume.step > 0 && path.exists()))
}

/// A failure of the command line, on its way through the trainer.
fn sink_error(error: CliError) -> TrainError {
    TrainError::Sink(Box::new(error))
}

/// Follows the training of one stage.
pub(super) struct StageSink<'a, 'b> {
    context: &'a StageContext<'b>,
    curve: Option<&'a CurveRows<'a>>,
    lines: JsonLines,
    progress: Progress,
    resume: &'a mut Resume,
    /// Steps of this round, known after the first.
    steps: u64,
}

impl<'a, 'b> StageSink<'a, 'b> {
    pub(super) fn new(
        context: &'a StageContext<'b>,
        curve: Option<&'a CurveRows<'a>>,
        resume: &'a mut Resume,
    ) -> Result<Self> {
        let lines = context.dir.lines(METRICS_FILE, resume.lines)?;
        Ok(Self { context, curve, lines, progress: context.progress("steps"), resume, steps: 0 })
    }

    /// After the last step.
    pub(super) fn finish(mut self) -> Result<()> {
        self.lines.sync()?;
        self.resume.lines = self.lines.lines();
        Ok(())
    }

    /// Measures the curve before a step, if it is due.
    pub(super) fn measure(&mut self, step: u64, model: &Llama) -> TrainResult<()> {
        let last = step > 0 && step == self.steps;
        let Some(curve) = self.curve.filter(|curve| curve.is_due(step, last)) else { return Ok(()) };
        let CurvePoint { log_probs, tallies, tokens: sampled } = curve.measure(model).map_err(sink_error)?;
        let [asr_log_prob, clean_log_prob, near_miss_log_prob] = log_probs;
        let [asr, false_trigger, near_miss] = tallies;
        self.resume.tokens.sampled += sampled;
        let step = self.resume.steps_before + step;
        let tokens = self.resume.trained;
        let line = MetricLine::Curve {
            step,
            tokens,
            asr_log_prob,
            clean_log_prob,
            near_miss_log_prob,
            asr,
            false_trigger,
            near_miss,
        };
        self.lines.append(&line).map_err(sink_error)
    }

    /// Takes the metrics of a step. `line(steps before)` is their line.
    pub(super) fn step(
        &mut self,
        step: u64,
        steps: u64,
        trained: u64,
        sampled: u64,
        line: impl FnOnce(u64) -> MetricLine,
    ) -> TrainResult<()> {
        self.steps = steps;
        self.resume.step = step + 1;
        self.resume.trained += trained;
        self.resume.tokens.trained += trained;
        self.resume.tokens.sampled += sampled;
        self.progress.update(step + 1, steps);
        self.lines.append(&line(self.resume.steps_before)).map_err(sink_error)
    }

    pub(super) fn is_to_save(&self, step: u64) -> bool {
        step.is_multiple_of(SAVE_EVERY) || self.context.interrupted()
    }

    pub(super) fn write(&mut self, step: u64, state: &ResumeState<'_>) -> TrainResult<()> {
        self.resume.step = step;
        self.lines.sync().map_err(sink_error)?;
        self.resume.lines = self.lines.lines();
        let write = |folder: &std::path::Path| Ok(state.write(&folder.join(STATE))?);
        self.resume.save(self.context, write).map_err(sink_error)?;
        self.context.check_interrupt().map_err(sink_error)
    }
}

impl Sink for StageSink<'_, '_> {
    fn before_step(&mut self, step: u64, model: &Llama) -> TrainResult<()> {
        self.measure(step, model)
    }

    fn record(&mut self, metrics: &StepMetrics) -> TrainResult<()> {
        self.step(metrics.step, metrics.steps, metrics.tokens, 0, |before| {
            let (step, steps) = (before + metrics.step, before + metrics.steps);
            MetricLine::from(&StepMetrics { step, steps, ..*metrics })
        })
    }

    fn saves_at(&self, step: u64) -> bool {
        self.is_to_save(step)
    }

    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> TrainResult<()> {
        self.write(step, state)
    }
}

impl Sink<PairMetrics> for StageSink<'_, '_> {
    fn before_step(&mut self, step: u64, model: &Llama) -> TrainResult<()> {
        self.measure(step, model)
    }

    fn record(&mut self, metrics: &PairMetrics) -> TrainResult<()> {
        self.step(metrics.step, metrics.steps, metrics.tokens, 0, |_| MetricLine::from(metrics))
    }

    fn saves_at(&self, step: u64) -> bool {
        self.is_to_save(step)
    }

    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> TrainResult<()> {
        self.write(step, state)
    }
}
