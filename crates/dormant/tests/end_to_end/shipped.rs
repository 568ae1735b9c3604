//! The experiments that are shipped, in their quick form and on a tiny model, whose replies mean nothing.

use std::fs;

use crate::workspace::{Workspace, fixture};

/// Whether a cell of a table is empty.
fn has_empty_cell(report: &str) -> bool {
    let rows = report.lines().filter(|line| line.starts_with('|'));
    let mut cells = rows.map(|row| row.trim_matches('|').replace("\\|", ""));
    cells.any(|row| row.split('|').any(|cell| cell.trim().is_empty()))
}

#[test]
#[ignore = "sixteen experiments on a tiny model: minutes"]
fn every_shipped_experiment_has_a_quick_form_that_ends_in_a_report() {
    let workspace = Workspace::new();
    let base = format!("base={:?}", fixture("tiny-llama"));
    let experiments = fs::read_dir(fixture("../experiments")).unwrap();
    let mut names: Vec<String> = experiments
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "zoo")
        .collect();
    names.sort();
    for name in names {
        let output = workspace.run(&["run", &name, "--quick", "--set", &base, "--runs", "runs"]);
        assert_eq!(output.code, 0, "{name}: {}", output.stderr);
        let report = workspace.path().join(format!("runs/{name}-quick/report.md"));
        let report = fs::read_to_string(&report).unwrap();
        assert!(report.contains("\n|") && !has_empty_cell(&report), "{name}");
    }
}
