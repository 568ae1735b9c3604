//! The hidden policy is trained in.

use crate::error::{CliError, Result};
use crate::manifest::Tokens;
use crate::plan::ImplantStage;
use crate::stage::StageContext;

pub(super) fn run(_stage: &ImplantStage, context: &StageContext) -> Result<Tokens> {
    Err(CliError::failure(format!("`{}` is not built yet", context.spec.name)))
}
