//! Where an experiment comes from: a file or the name of a shipped one, with changes from the command line.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::raw::RawExperiment;
use super::{Experiment, overrides, parse_error, quick, resolve, shipped};
use crate::error::{CliError, Result, suggestion};

/// An experiment as it was given: kept for the manifest.
#[derive(Debug, Clone)]
pub struct ExperimentSource {
    /// How messages call it: the path, or `quickstart`.
    pub label: String,
    /// The text of the file.
    pub text: String,
    stem: String,
    folder: PathBuf,
}

/// Changes to an experiment from the command line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides<'a> {
    /// `KEY=VALUE` pairs.
    pub set: &'a [String],
    /// Seeds to use instead; empty for those of the experiment.
    pub seeds: &'a [u32],
    /// Make it small.
    pub quick: bool,
}

impl Overrides<'_> {
    /// The flags of the command line, as they would be typed.
    pub fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = self.set.iter().map(|pair| format!("--set {pair}")).collect();
        if !self.seeds.is_empty() {
            let seeds: Vec<String> = self.seeds.iter().map(ToString::to_string).collect();
            flags.push(format!("--seeds {}", seeds.join(",")));
        }
        if self.quick {
            flags.push("--quick".to_owned());
        }
        flags
    }
}

impl ExperimentSource {
    /// Reads the experiment that `name` names: a file, or one that is shipped.
    ///
    /// # Errors
    /// When there is neither, or the file cannot be read.
    pub fn read(name: &str) -> Result<Self> {
        let path = Path::new(name);
        match fs::read_to_string(path) {
            Ok(text) => Self::from_file(path, text),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
                shipped::find(name).map(|text| Self::in_memory(name, text)).ok_or_else(|| not_found(name))
            }
            Err(error) => Err(CliError::usage(format!("cannot read `{name}`")).caused_by(error)),
        }
    }

    /// An experiment that is not a file: its paths are relative to the current folder.
    pub fn in_memory(name: &str, text: impl Into<String>) -> Self {
        Self { label: name.to_owned(), text: text.into(), stem: name.to_owned(), folder: PathBuf::new() }
    }

    fn from_file(path: &Path, text: String) -> Result<Self> {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| {
            CliError::usage(format!("`{}`: the file name is not UTF-8", path.display()))
                .hint("rename the file")
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { label: path.display().to_string(), text, stem: stem.to_owned(), folder })
    }

    /// Parses and resolves the experiment.
    ///
    /// # Errors
    /// When the file or an override has an unknown key, a value out of range, or parts that do not fit together.
    pub fn resolve(&self, overrides: &Overrides) -> Result<Experiment> {
        // The file is parsed alone first, so that errors in it can name its lines.
        let mut raw: RawExperiment = toml::from_str(&self.text)
            .map_err(|error| parse_error::explain(&error, &self.label, Some(&self.text)))?;
        if !overrides.set.is_empty() {
            let mut table = toml::from_str(&self.text).expect("it has just been parsed");
            overrides::apply(&mut table, overrides.set)?;
            raw = toml::Value::Table(table)
                .try_into()
                .map_err(|error: toml::de::Error| parse_error::explain(&error, "--set", None))?;
        }
        if !overrides.seeds.is_empty() {
            raw.seeds = Some(overrides.seeds.iter().map(|seed| u64::from(*seed)).collect());
        }
        let experiment = resolve::resolve(raw, &self.stem, &self.folder)?;
        Ok(if overrides.quick { quick::quick(experiment) } else { experiment })
    }
}

fn not_found(name: &str) -> CliError {
    let names: Vec<String> = shipped::SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let error = CliError::usage(format!("no experiment `{name}`: neither a file nor shipped with dormant"));
    match suggestion(name, &names) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
