//! The libraries' `tracing` on stderr, above any progress bar.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;

use super::Ui;

/// Routes `tracing` to stderr: warnings by default, errors with `--quiet`, more with each `--verbose`.
pub(super) fn install(ui: &Ui, quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let ui = ui.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .without_time()
        .with_ansi(console::colors_enabled_stderr())
        .with_writer(move || AboveBars(ui.clone()))
        .finish();
    // A second call in one process (tests) keeps the first subscriber.
    tracing::subscriber::set_global_default(subscriber).ok();
}

struct AboveBars(Ui);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.bars.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
