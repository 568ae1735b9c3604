//! Results that are shipped with their records: every number of the report follows from them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tar::Archive;

use crate::rederived::Run;
use crate::workspace::{Workspace, fixture};

/// The folders under `results/` that have the file.
fn results_with(file: &str) -> Vec<PathBuf> {
    let results = fs::read_dir(fixture("../results")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = results.filter(|path| path.join(file).exists()).collect();
    found.sort();
    found
}

#[test]
fn committed_pages_show_their_reports() {
    let results = results_with("report.html");
    assert!(results.len() >= 15);
    for result in results {
        let workspace = Workspace::new();
        fs::copy(result.join("report.json"), workspace.path().join("report.json")).unwrap();
        let output = workspace.run(&["report", "report.json"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        for file in ["report.md", "report.html"] {
            let [again, committed] =
                [workspace.path(), &result].map(|folder| fs::read(folder.join(file)).unwrap());
            assert!(
                again == committed,
                "`dormant report {}/report.json` makes another {file}",
                result.display()
            );
        }
    }
}

/// Unpacks the records of a run.
pub(crate) fn unpack(records: &Path, runs: &Path) {
    Archive::new(GzDecoder::new(File::open(records).unwrap())).unpack(runs).unwrap();
}

#[test]
fn committed_reports_follow_from_their_records() {
    let workspace = Workspace::new();
    let runs = workspace.path().join("runs");
    let results = results_with("records.tar.gz");
    assert!(results.iter().any(|result| result.ends_with("quickstart")));
    for result in results {
        unpack(&result.join("records.tar.gz"), &runs);
        let name = result.file_name().unwrap().to_str().unwrap();
        let output = workspace.run(&["report", &format!("runs/{name}")]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{name}");
        let [again, committed] =
            [&runs.join(name), &result].map(|dir| fs::read(dir.join("report.json")).unwrap());
        assert!(
            again == committed,
            "results/{name}/report.json is not what `dormant report` makes of its records"
        );
        Run::read(&runs.join(name)).recount();
    }
}
