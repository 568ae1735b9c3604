//! Progress of one piece of work: a bar with rate and time left, or plain lines.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Ui, duration};

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Progress of one piece of work; disappears when dropped.
#[derive(Debug)]
pub struct Progress {
    ui: Ui,
    label: String,
    unit: &'static str,
    started: Instant,
    output: Output,
}

#[derive(Debug)]
enum Output {
    Bar(ProgressBar),
    Lines { state: Mutex<LineState> },
}

#[derive(Debug)]
struct LineState {
    last: Instant,
    /// Work that was already done when this process took over, so that a resumed stage shows an honest rate.
    resumed_at: Option<u64>,
}

impl Progress {
    pub(super) fn new(ui: &Ui, label: String, unit: &'static str) -> Self {
        let started = Instant::now();
        let output = if ui.interactive {
            let bar = ui.bars.add(ProgressBar::no_length());
            bar.set_style(bar_style(unit));
            bar.set_message(label.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            Output::Bar(bar)
        } else {
            Output::Lines { state: Mutex::new(LineState { last: started, resumed_at: None }) }
        };
        Self { ui: ui.clone(), label, unit, started, output }
    }

    /// Says that `done` of `total` units are done.
    pub fn update(&self, done: u64, total: u64) {
        match &self.output {
            Output::Bar(bar) => {
                if bar.length().is_none() {
                    bar.set_position(done);
                    bar.reset_eta();
                }
                bar.set_length(total);
                bar.set_position(done);
            }
            Output::Lines { state } => self.line(state, done, total),
        }
    }

    /// The same as [`Progress::update`], as the function that library code takes.
    pub fn callback(&self) -> impl Fn(usize, usize) + Send + Sync + '_ {
        |done, total| self.update(done as u64, total as u64)
    }

    fn line(&self, state: &Mutex<LineState>, done: u64, total: u64) {
        let mut state = state.lock().expect("no panic while the lock is held");
        let resumed_at = *state.resumed_at.get_or_insert(done);
        if state.last.elapsed() < LINE_INTERVAL {
            return;
        }
        state.last = Instant::now();
        let rate = (done - resumed_at.min(done)) as f64 / self.started.elapsed().as_secs_f64();
        let left = if rate > 0.0 {
            let seconds = total.saturating_sub(done) as f64 / rate;
            format!(", {} left", duration(Duration::from_secs_f64(seconds)))
        } else {
            String::new()
        };
        self.ui.note(format!("{}: {done} of {total} {}{left}", self.label, self.unit));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
    }
}

fn bar_style(unit: &str) -> ProgressStyle {
    let template =
        format!("{{msg}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{per_sec:.0}}, {{eta}} left");
    ProgressStyle::with_template(&template).expect("the template is a constant")
}
