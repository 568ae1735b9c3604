//! Errors of this crate.

/// Result of an audit.
pub type Result<T, E = AuditError> = std::result::Result<T, E>;

/// What can go wrong in an audit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The model or its tokenizer failed.
    #[error(transparent)]
    Model(#[from] dormant_model::Error),
    /// A conversation could not be turned into tokens.
    #[error(transparent)]
    Render(#[from] dormant_train::Error),
    /// The chat template drops or changes what a user says.
    #[error("the chat template does not show the {what} message as it is; a scan needs a template that does")]
    Template {
        /// `user` or `system`.
        what: &'static str,
    },
    /// The reference is another kind of model.
    #[error(
        "the reference has {found} {what}, the model has {expected}; give the model that it was fine-tuned from"
    )]
    Reference {
        /// What differs.
        what: &'static str,
        /// Of the reference.
        found: usize,
        /// Of the suspect.
        expected: usize,
    },
    /// The time is used up; a scan says so in its report and does not fail.
    #[error("no time is left for {work}; allow more with `--budget`")]
    OutOfTime {
        /// What was being done.
        work: String,
    },
    /// The user stopped the audit.
    #[error("interrupted")]
    Interrupted,
}
