//! `dormant report`: writes the reports of runs again.

use crate::cli::ReportArgs;
use crate::error::Result;
use crate::report;
use crate::store::RunStore;
use crate::ui::Ui;

pub(super) fn run(args: &ReportArgs, ui: &Ui) -> Result<()> {
    for run in &args.runs {
        let store = RunStore::open(run)?;
        let (_, _, plan) = store.recorded()?;
        report::write_run(&store, &plan)?;
        ui.status("wrote", store.root().join("report.html").display());
    }
    Ok(())
}
