//! `dormant report`: writes the reports of runs again.

use serde::Serialize;

use crate::cli::ReportArgs;
use crate::error::{CliError, Result};
use crate::report::{self, Written};
use crate::store::RunStore;
use crate::tool_output::ToolOutput;
use crate::ui::Ui;

pub(super) fn run(args: &ReportArgs, ui: &Ui) -> Result<()> {
    let opinions = args.compare.iter().map(|given| ToolOutput::read(&given.tool, &given.path));
    let opinions = opinions.collect::<Result<Vec<_>>>()?;
    let mut reports = Vec::new();
    let asks_about_code = args.code.is_some() || !opinions.is_empty();
    for run in &args.runs {
        if run.is_file() && !asks_about_code {
            reports.push(report::write_again(run)?);
            continue;
        }
        let store = RunStore::open(run)?;
        let (experiment, _, plan) = store.recorded()?;
        if asks_about_code && !experiment.writes_code() {
            let message = format!("`{}` is not about code", store.root().display());
            return Err(CliError::usage(message).hint("leave out `--code` and `--compare`"));
        }
        opinions.iter().try_for_each(|opinion| store.keep_opinion(opinion))?;
        reports.push(report::write_run(&store, &plan)?);
        if let Some(dir) = &args.code {
            let written = report::write_programs(&store, &plan, dir)?;
            ui.status("wrote", format!("{written} programs to {}", dir.display()));
        }
    }
    show(reports, ui)
}

/// Reports that were written.
#[derive(Serialize)]
struct Reports {
    schema_version: u32,
    reports: Vec<Written>,
}

/// Prints what the reports say and where they are.
pub(super) fn show(reports: Vec<Written>, ui: &Ui) -> Result<()> {
    ui.result(&Reports { schema_version: 1, reports }, |reports| {
        let text = |written: &Written| format!("{}\n{}", written.answer, written.report.display());
        reports.reports.iter().map(text).collect::<Vec<_>>().join("\n\n")
    })
}
