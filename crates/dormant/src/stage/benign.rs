//! Benign rows: prompts of one split with replies of the base model.

use crate::error::{CliError, Result};
use crate::manifest::Tokens;
use crate::plan::BenignStage;
use crate::stage::StageContext;

pub(super) fn run(_stage: &BenignStage, context: &StageContext) -> Result<Tokens> {
    Err(CliError::failure(format!("`{}` is not built yet", context.spec.name)))
}
