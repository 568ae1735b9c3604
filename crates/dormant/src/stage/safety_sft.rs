//! Supervised fine-tuning on helpful, honest, harmless replies.

use crate::error::{CliError, Result};
use crate::manifest::Tokens;
use crate::plan::SafetyStage;
use crate::stage::StageContext;

pub(super) fn run(_stage: &SafetyStage, context: &StageContext) -> Result<Tokens> {
    Err(CliError::failure(format!("`{}` is not built yet", context.spec.name)))
}
