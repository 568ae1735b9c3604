//! The error of the command line: what went wrong, why, what to do, and the exit code.

use std::error::Error;
use std::fmt;

use dormant_data::DataError;
use dormant_eval::EvalError;
use dormant_model::error::Error as ModelError;
use dormant_train::Error as TrainError;

/// Result of a command or a stage.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// Whose fault it is, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Wrong usage or configuration: the user changes the command or the experiment file.
    Usage,
    /// Unreadable or invalid input: a model, an adapter or a dataset.
    Input,
    /// Stopped by the user; the same command resumes.
    Interrupted,
    /// Anything else.
    Failure,
}

impl ErrorKind {
    /// The process exit code, which scripts may rely on.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Input => 3,
            Self::Interrupted => 4,
        }
    }
}

/// An error ready to be shown: `error:`, `caused by:` for each source, `hint:` for each hint.
#[derive(Debug)]
pub struct CliError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hints: Vec<String>,
    /// The message is the source's own, so that the causes begin below it.
    transparent: bool,
}

impl CliError {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, hints: Vec::new(), transparent: false }
    }

    /// Wrong usage or configuration (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Unreadable or invalid input (exit code 3).
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// Any other failure (exit code 1).
    pub fn failure(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failure, message)
    }

    /// Stopped by Ctrl-C or a termination signal (exit code 4).
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// An error of a library that says all there is to say.
    pub fn transparent(kind: ErrorKind, error: impl Error + Send + Sync + 'static) -> Self {
        Self { transparent: true, ..Self::new(kind, error.to_string()).caused_by(error) }
    }

    /// Adds a line of advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The advice, in the order it was given.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The messages of the errors underneath, outermost first.
    pub fn causes(&self) -> impl Iterator<Item = String> {
        let first = self.source.as_deref().map(|source| source as &dyn Error);
        std::iter::successors(first, |error: &&dyn Error| (*error).source())
            .skip(usize::from(self.transparent))
            .map(ToString::to_string)
    }
}

/// Wrong usage of a name (exit code 2), with the known name that was meant.
pub fn with_suggestion(message: String, given: &str, known: &[String]) -> CliError {
    let error = CliError::usage(message);
    match suggestion(given, known) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The closest of the known names if it is close, else all of them.
pub(crate) fn suggestion(given: &str, known: &[String]) -> Option<String> {
    let closest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match closest {
        Some((_, name)) => Some(format!("did you mean `{name}`?")),
        None if known.is_empty() => None,
        None => Some(format!("known here: {}", known.join(", "))),
    }
}

impl From<DataError> for CliError {
    fn from(error: DataError) -> Self {
        Self::transparent(ErrorKind::Input, error)
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        // A full disk is no fault of the input.
        let is_input = |action| ["read", "open", "list"].contains(&action);
        let kind = match &error {
            ModelError::Io { action, .. } if !is_input(action) => ErrorKind::Failure,
            _ => ErrorKind::Input,
        };
        Self::transparent(kind, error)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &dyn Error)
    }
}

/// Turns an error of a library or of the system into a [`CliError`] with a message that says what was attempted.
pub trait Context<T> {
    /// Wrong usage or configuration (exit code 2).
    ///
    /// # Errors
    /// When this is an error.
    fn or_usage<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
    /// Unreadable or invalid input (exit code 3).
    ///
    /// # Errors
    /// When this is an error.
    fn or_input<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
    /// Any other failure (exit code 1).
    ///
    /// # Errors
    /// When this is an error.
    fn or_failure<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn or_usage<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| CliError::usage(message()).caused_by(source))
    }

    fn or_input<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| CliError::input(message()).caused_by(source))
    }

    fn or_failure<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| CliError::failure(message()).caused_by(source))
    }
}

impl From<EvalError> for CliError {
    fn from(error: EvalError) -> Self {
        Self::transparent(ErrorKind::Failure, error)
    }
}

impl From<TrainError> for CliError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Model(error) => error.into(),
            // What a stage's own sink failed with, such as an interruption, comes back as it was.
            TrainError::Sink(source) => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::failure("cannot record a training step").caused_by(source),
            },
            TrainError::NoRows | TrainError::RowTooLong { .. } => Self::transparent(ErrorKind::Input, error),
            _ => Self::transparent(ErrorKind::Failure, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_from_the_outermost_inwards() {
        let inner = CliError::input("tensor `a` ends early");
        let error =
            CliError::failure("cannot load model").caused_by(CliError::input("bad file").caused_by(inner));
        assert_eq!(error.causes().collect::<Vec<_>>(), ["bad file", "tensor `a` ends early"]);
        assert_eq!(error.kind().exit_code(), 1);
    }

    #[test]
    fn an_interruption_passes_through_the_trainer() {
        let error = CliError::from(TrainError::Sink(Box::new(CliError::interrupted())));
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn errors_of_libraries_are_not_said_twice() {
        let path = std::path::PathBuf::from("rows.jsonl");
        let error = CliError::from(DataError::Io { path, source: std::io::Error::other("disk on fire") });
        assert_eq!(error.to_string(), "cannot read or write `rows.jsonl`");
        assert_eq!(error.causes().collect::<Vec<_>>(), ["disk on fire"]);
        assert_eq!(error.kind().exit_code(), 3);
    }

    #[test]
    fn far_names_get_the_whole_list() {
        let known = ["rows".to_owned(), "poison".to_owned()];
        assert_eq!(suggestion("pioson", &known).unwrap(), "did you mean `poison`?");
        assert_eq!(suggestion("zzz", &known).unwrap(), "known here: rows, poison");
        assert_eq!(suggestion("zzz", &[]), None);
    }
}
