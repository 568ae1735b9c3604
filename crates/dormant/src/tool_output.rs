//! What another tool found in code, as `--compare TOOL=FILE` names it.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dormant_eval::code::{Opinion, read_opinion};

use crate::error::{CliError, Context, Result};

/// A tool and the file that it wrote.
#[derive(Clone, Debug)]
pub struct ToolFile {
    /// Name of the tool.
    pub tool: String,
    /// JSON of Bandit or Semgrep, or SARIF of any tool.
    pub path: PathBuf,
}

impl FromStr for ToolFile {
    type Err = String;

    fn from_str(argument: &str) -> Result<Self, String> {
        let (tool, path) = argument
            .split_once('=')
            .filter(|(tool, path)| is_name(tool) && !path.is_empty())
            .ok_or("expected `TOOL=FILE`, such as `bandit=bandit.json`")?;
        Ok(Self { tool: tool.to_owned(), path: path.into() })
    }
}

/// The name of a tool may become that of a file.
fn is_name(tool: &str) -> bool {
    !tool.is_empty() && tool.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+'))
}

/// What a tool wrote.
#[derive(Debug)]
pub(crate) struct ToolOutput {
    /// Name of the tool.
    pub(crate) tool: String,
    /// The text of its file.
    pub(crate) text: String,
    /// What it found.
    pub(crate) opinion: Opinion,
}

impl ToolOutput {
    /// Reads the output of a tool.
    ///
    /// # Errors
    /// If the file cannot be read, or is in no known format.
    pub(crate) fn read(tool: &str, path: &Path) -> Result<Self> {
        let unreadable = || format!("cannot read `{}`", path.display());
        let text = fs::read_to_string(path).or_input(unreadable)?;
        let opinion =
            read_opinion(&text).map_err(|source| CliError::input(unreadable()).caused_by(source))?;
        Ok(Self { tool: tool.to_owned(), text, opinion })
    }
}
