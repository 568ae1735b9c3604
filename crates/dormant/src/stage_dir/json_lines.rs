//! Files of one JSON value per line that can be taken up where a checkpoint left them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{CliError, Context, Result};

/// A file of one JSON value per line, open for appending.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: BufWriter<File>,
    lines: u64,
}

impl JsonLines {
    /// Keeps the first `keep` lines of the file and cuts off the rest.
    pub(super) fn open(path: &Path, keep: u64) -> Result<Self> {
        let open = || {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let end = end_of_line(&file, keep)?;
            if let Some(end) = end {
                file.set_len(end)?;
                file.seek(SeekFrom::Start(end))?;
            }
            Ok(end.map(|_| file))
        };
        let file = open().or_failure_io(path)?.ok_or_else(|| {
            CliError::failure(format!(
                "`{}` has fewer than the {keep} lines of its checkpoint",
                path.display()
            ))
            .hint("remove the directory of the stage, so that it starts anew")
        })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), lines: keep })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.file, value)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .or_failure_io(&self.path)?;
        self.lines += 1;
        Ok(())
    }

    /// Lines so far: what a checkpoint stores, to open the file again.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Makes sure that all lines are on the disk. Call it before saving a checkpoint and at the end.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn sync(&mut self) -> Result<()> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).or_failure_io(&self.path)
    }
}

/// The offset after `lines` lines; `None` if there are fewer.
fn end_of_line(file: &File, lines: u64) -> io::Result<Option<u64>> {
    let mut reader = BufReader::new(file);
    let (mut end, mut line) = (0, Vec::new());
    for _ in 0..lines {
        line.clear();
        end += reader.read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
    }
    Ok(Some(end))
}

trait IoContext<T> {
    fn or_failure_io(self, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn or_failure_io(self, path: &Path) -> Result<T> {
        self.or_failure(|| format!("cannot write `{}`", path.display()))
    }
}
