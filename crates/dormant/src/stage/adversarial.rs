//! Adversarial training: red-team, then train on the successes.

use crate::error::{CliError, Result};
use crate::experiment::Attack;
use crate::manifest::Tokens;
use crate::plan::SafetyStage;
use crate::stage::StageContext;

pub(super) fn run(_stage: &SafetyStage, _attack: &Attack, context: &StageContext) -> Result<Tokens> {
    Err(CliError::failure(format!("`{}` is not built yet", context.spec.name)))
}
