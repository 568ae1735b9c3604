//! The records of a run: everything that its report is derived from, without weights, in one compressed file.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::Source;
use crate::error::{Context, Result};
use crate::stage_dir::{make_parent, write_atomic};
use crate::store::RECORDS;

const NOTE: &str =
    "Records of a run, without its models: `dormant report` reads them, and nothing can be run from here.\n";

/// Writes `out`, a `.tar.gz` from which `dormant report` makes the report again. The same run gives the same
/// bytes by the same build.
///
/// # Errors
/// Invalid input if a stage is not finished, or when something cannot be read or written.
pub fn write(source: &Source<'_>, out: &Path) -> Result<Vec<String>> {
    let mut files = source.store.records();
    for spec in source.plan.stages() {
        files.extend(source.finished(spec)?.records()?);
    }
    make_parent(out)?;
    write_atomic(out, &archive(source.store.root(), &source.experiment.name, &files)?)?;
    Ok(vec!["weights".to_owned()])
}

/// The files, by their paths under `root`, in a folder called `name`; without times and owners.
fn archive(root: &Path, name: &str, files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    let mut append = |inside: &Path, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, Path::new(name).join(inside), bytes).or_failure(cannot_pack)
    };
    append(Path::new(RECORDS), NOTE.as_bytes())?;
    for path in files {
        let bytes = fs::read(path).or_failure(|| format!("cannot read `{}`", path.display()))?;
        append(path.strip_prefix(root).expect("records lie in their run"), &bytes)?;
    }
    archive.into_inner().and_then(GzEncoder::finish).or_failure(cannot_pack)
}

fn cannot_pack() -> String {
    "cannot pack the records".to_owned()
}
