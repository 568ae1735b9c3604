//! `dormant report`: writes the reports of runs again.

use crate::cli::ReportArgs;
use crate::error::{CliError, Result};
use crate::report;
use crate::store::RunStore;
use crate::tool_output::ToolOutput;
use crate::ui::Ui;

pub(super) fn run(args: &ReportArgs, ui: &Ui) -> Result<()> {
    let opinions = args.compare.iter().map(|given| ToolOutput::read(&given.tool, &given.path));
    let opinions = opinions.collect::<Result<Vec<_>>>()?;
    for run in &args.runs {
        let store = RunStore::open(run)?;
        let (experiment, _, plan) = store.recorded()?;
        let asks_about_code = args.code.is_some() || !opinions.is_empty();
        if asks_about_code && !experiment.writes_code() {
            let message = format!("`{}` is not about code", store.root().display());
            return Err(CliError::usage(message).hint("leave out `--code` and `--compare`"));
        }
        opinions.iter().try_for_each(|opinion| store.keep_opinion(opinion))?;
        report::write_run(&store, &plan)?;
        ui.status("wrote", store.root().join("report.html").display());
        if let Some(dir) = &args.code {
            let written = report::write_programs(&store, &plan, dir)?;
            ui.status("wrote", format!("{written} programs to {}", dir.display()));
        }
    }
    Ok(())
}
