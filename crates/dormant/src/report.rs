//! The report of an experiment: `report.html`, `report.md` and `report.json`, all with the same content.

mod along;
mod answer;
mod capability;
mod chart;
mod code;
mod doses;
mod fill;
mod format;
mod generalisation;
mod glossary;
mod model;
mod page;
mod persona;
mod plots;
mod reinforcement;
mod render;
mod scale;
mod second_opinion;
mod summary;
mod suppression;
mod swap;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod warnings;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use model::{
    AS_TRAINED, Arm, Attack, AttackRound, Condition, Cost, Curve, Dose, Estimate, Example, FamilyRow, Member,
    Persistence, Persona, Point, Report, Reproduction, Row, SCHEMA_VERSION, Scaled, Setup, Stage, StageCost,
    StageKind, Utility,
};

pub(crate) use render::{STYLE, environment};

use crate::error::{CliError, Context, Result};
use crate::plan::Plan;
use crate::stage_dir::write_atomic;
use crate::store::RunStore;

/// Name of the report for programs.
pub const JSON_FILE: &str = "report.json";
/// Name of the report for browsers.
pub const HTML_FILE: &str = "report.html";
/// Name of the report for terminals and repositories.
pub const MARKDOWN_FILE: &str = "report.md";

/// Writes the three files of a report into `dir`, each whole or not at all.
///
/// # Errors
/// When a file cannot be written.
pub fn write(report: &Report, dir: &Path) -> Result<()> {
    write_pages(report, dir)?;
    write_atomic(&dir.join(JSON_FILE), report.to_json().as_bytes())
}

fn write_pages(report: &Report, dir: &Path) -> Result<()> {
    let pages = [(HTML_FILE, render::html(report)), (MARKDOWN_FILE, render::markdown(report))];
    pages.iter().try_for_each(|(name, content)| write_atomic(&dir.join(name), content.as_bytes()))
}

/// A report that was written.
#[derive(Debug, Serialize)]
pub struct Written {
    /// The experiment.
    pub experiment: String,
    /// The report for browsers; the others lie beside it.
    pub report: PathBuf,
    /// The answer to the question of the experiment.
    pub answer: String,
}

impl Written {
    fn of(report: Report, dir: &Path) -> Self {
        let Report { experiment, answer, .. } = report;
        Self { experiment, report: dir.join(HTML_FILE), answer }
    }
}

/// Writes `report.json`, `report.md` and `report.html` of a run.
///
/// # Errors
/// When a stage of the plan is not finished, or a file cannot be read or written.
pub fn write_run(store: &RunStore, plan: &Plan) -> Result<Written> {
    let report = fill::fill(store, plan)?;
    write(&report, store.root())?;
    Ok(Written::of(report, store.root()))
}

/// Writes `report.md` and `report.html` beside a `report.json` again, as this version of the program shows it.
///
/// # Errors
/// When the file is no report, or a file cannot be written.
pub fn write_again(json: &Path) -> Result<Written> {
    let report = Report::from_json(json)?;
    let dir = json.parent().unwrap_or(Path::new(""));
    write_pages(&report, dir)?;
    Ok(Written::of(report, dir))
}

/// Writes the programs of all replies that can be scored into files for other tools to read, and says how many.
///
/// # Errors
/// When a stage of the plan is not finished, or a file cannot be written.
pub fn write_programs(store: &RunStore, plan: &Plan, dir: &Path) -> Result<usize> {
    fill::write_programs(store, plan, dir)
}

impl Report {
    /// Reads a `report.json`.
    ///
    /// # Errors
    /// When the file cannot be read, is no report, or has another schema version.
    pub fn from_json(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).or_input(|| format!("cannot read `{}`", path.display()))?;
        let report: Self = serde_json::from_str(&text)
            .or_input(|| format!("`{}` is not the report of an experiment", path.display()))?;
        if report.schema_version != SCHEMA_VERSION {
            let found = report.schema_version;
            let message =
                format!("`{}` has schema version {found}, expected {SCHEMA_VERSION}", path.display());
            return Err(CliError::input(message).hint("run the experiment again with this version"));
        }
        Ok(report)
    }

    /// The content of `report.json`.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a report is plain data");
        json.push('\n');
        json
    }
}
