//! The only place that prints: results to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use console::{Style, Term};
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::cli::{Format, GlobalArgs};
use crate::error::{CliError, Context, ErrorKind, Result};

mod progress;
mod tracing_output;

pub use progress::Progress;

/// How much is written to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Quiet,
    Normal,
    Verbose,
}

/// The terminal, or what stands in its place.
#[derive(Debug, Clone)]
pub struct Ui {
    format: Format,
    level: Level,
    bars: MultiProgress,
    interactive: bool,
}

impl Ui {
    /// The user interface as the global flags ask for it. Also routes the libraries' `tracing` to stderr.
    pub fn new(args: &GlobalArgs) -> Self {
        if args.no_color {
            console::set_colors_enabled(false);
            console::set_colors_enabled_stderr(false);
        }
        let level = match (args.quiet, args.verbose) {
            (true, _) => Level::Quiet,
            (false, 0) => Level::Normal,
            (false, _) => Level::Verbose,
        };
        let interactive = Term::stderr().is_term() && level != Level::Quiet;
        let target = if interactive { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let ui =
            Self { format: args.format, level, bars: MultiProgress::with_draw_target(target), interactive };
        tracing_output::install(&ui, args.quiet, args.verbose);
        ui
    }

    /// Prints a result: `value` itself in JSON, or its rendering by `text`.
    ///
    /// # Errors
    /// As [`Ui::text`].
    pub fn result<T: Serialize + ?Sized>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        match self.format {
            Format::Json => self.text(serde_json::to_string_pretty(value).expect("results are plain data")),
            Format::Text => self.text(text(value).trim_end()),
        }
    }

    /// Prints text to stdout whatever the format: help, completion scripts, file contents.
    ///
    /// # Errors
    /// When it cannot be written, such as to a full disk. A closed pipe (`dormant models list | head -1`) is no error.
    pub fn text(&self, text: impl Display) -> Result<()> {
        match self.bars.suspend(|| writeln!(io::stdout(), "{text}")) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).or_failure(|| "cannot write to stdout")
            }
            _ => Ok(()),
        }
    }

    /// A line about progress, unless `--quiet`.
    pub fn note(&self, text: impl Display) {
        if self.level >= Level::Normal {
            self.stderr(&text.to_string());
        }
    }

    /// A line for `--verbose`.
    pub fn detail(&self, text: impl Display) {
        if self.level >= Level::Verbose {
            self.stderr(&text.to_string());
        }
    }

    /// A line that starts with a coloured verb, such as `done implant-organism-s0 in 12 s`.
    pub fn status(&self, verb: &str, text: impl Display) {
        let verb = Style::new().for_stderr().green().bold().apply_to(verb);
        self.note(format!("{verb} {text}"));
    }

    /// Something the user should know although the command goes on.
    pub fn warn(&self, text: impl Display) {
        let label = Style::new().for_stderr().yellow().bold().apply_to("warning:");
        self.note(format!("{label} {text}"));
    }

    /// The error a command ended with, its causes and hints.
    pub fn error(&self, error: &CliError) {
        let red = Style::new().for_stderr().red().bold();
        let cyan = Style::new().for_stderr().cyan().bold();
        self.stderr(&format!("{} {error}", red.apply_to("error:")));
        for cause in error.causes() {
            self.stderr(&format!("  {} {cause}", red.apply_to("caused by:")));
        }
        for hint in error.hints() {
            self.stderr(&format!("  {} {hint}", cyan.apply_to("hint:")));
        }
    }

    /// A progress bar on a terminal, a line every few seconds elsewhere, nothing with `--quiet`.
    pub fn progress(&self, label: impl Into<String>, unit: &'static str) -> Progress {
        Progress::new(self, label.into(), unit)
    }

    fn stderr(&self, text: &str) {
        self.bars.suspend(|| writeln!(io::stderr(), "{text}")).ok();
    }
}

/// Prints what clap has to say: help and version to stdout (exit code 0), wrong usage to stderr (exit code 2).
pub fn usage_error(error: &clap::Error) -> ExitCode {
    error.print().ok();
    ExitCode::from(if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 })
}

/// A duration in words: `8 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_words() {
        let words = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!(words(7.6), "8 s");
        assert_eq!(words(120.0), "2 min");
        assert_eq!(words(200.0), "3 min 20 s");
        assert_eq!(words(7500.0), "2 h 5 min");
    }
}
