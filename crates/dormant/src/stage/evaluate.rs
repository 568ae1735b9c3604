//! All measurements of one model.

use crate::error::{CliError, Result};
use crate::manifest::Tokens;
use crate::plan::EvaluateStage;
use crate::stage::StageContext;

pub(super) fn run(_stage: &EvaluateStage, context: &StageContext) -> Result<Tokens> {
    Err(CliError::failure(format!("`{}` is not built yet", context.spec.name)))
}
