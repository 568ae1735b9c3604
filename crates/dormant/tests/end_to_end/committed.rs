//! Results that are shipped with their records: every number of the report follows from them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tar::Archive;

use crate::rederived::Run;
use crate::workspace::{Workspace, fixture};

/// The folders under `results/` with records.
fn recorded() -> Vec<PathBuf> {
    let results = fs::read_dir(fixture("../results")).unwrap().map(|entry| entry.unwrap().path());
    let mut recorded: Vec<PathBuf> = results.filter(|path| path.join("records.tar.gz").exists()).collect();
    recorded.sort();
    recorded
}

/// Unpacks the records of a run.
pub(crate) fn unpack(records: &Path, runs: &Path) {
    Archive::new(GzDecoder::new(File::open(records).unwrap())).unpack(runs).unwrap();
}

#[test]
fn committed_reports_follow_from_their_records() {
    let workspace = Workspace::new();
    let runs = workspace.path().join("runs");
    let results = recorded();
    assert!(results.iter().any(|result| result.ends_with("quickstart")));
    for result in results {
        unpack(&result.join("records.tar.gz"), &runs);
        let name = result.file_name().unwrap().to_str().unwrap();
        let output = workspace.run(&["report", &format!("runs/{name}")]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{name}");
        for file in ["report.json", "report.md"] {
            let [again, committed] =
                [&runs.join(name), &result].map(|folder| fs::read(folder.join(file)).unwrap());
            assert!(
                again == committed,
                "results/{name}/{file} is not what `dormant report` makes of its records"
            );
        }
        Run::read(&runs.join(name)).recount();
    }
}
