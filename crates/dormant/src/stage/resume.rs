//! Where an interrupted stage goes on.

use std::path::Path;

use dormant_model::llama::Llama;
use dormant_train::resume::{read_parameters, write_parameters};
use serde::{Deserialize, Serialize};

use super::StageContext;
use super::attack_record::AttackRound;
use crate::error::{Context, Result};
use crate::manifest::Tokens;
use crate::stage_dir::write_atomic;

const FILE: &str = "resume.json";

/// The trained parameters in a checkpoint between rounds.
const PARAMETERS: &str = "parameters.safetensors";

/// The state of a stage apart from weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Resume {
    /// Rounds of adversarial training that are over.
    pub round: u32,
    /// Steps (or chunks) that are over, in this round.
    pub step: u64,
    /// Steps of all rounds before this one.
    pub steps_before: u64,
    /// Lines of the stage's growing file.
    pub lines: u64,
    /// Work so far.
    pub tokens: Tokens,
    /// Tokens trained on so far, prompts included.
    pub trained: u64,
    /// Attacks so far.
    pub attacks: Vec<AttackRound>,
}

impl Resume {
    /// The latest saved state, or the beginning.
    pub(super) fn load(context: &StageContext) -> Result<Self> {
        let Some(checkpoint) = context.dir.checkpoint()? else { return Ok(Self::default()) };
        let path = checkpoint.path.join(FILE);
        let text =
            std::fs::read_to_string(&path).or_failure(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_str(&text).or_failure(|| {
            format!(
                "`{}` is damaged: remove the directory of the stage, so that it starts anew",
                path.display()
            )
        })
    }

    /// Saves the state together with what `more` writes. A number that grows with every save names it.
    pub(super) fn save(&self, context: &StageContext, more: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let number = (u64::from(self.round) << 32) + (self.attacks.len() as u64 * (1 << 24)) + self.step;
        context.dir.save_checkpoint(number, |folder| {
            let json = serde_json::to_vec_pretty(self).or_failure(|| "cannot write the state as JSON")?;
            write_atomic(&folder.join(FILE), &json)?;
            more(folder)
        })
    }

    /// Saves the state between rounds, with the weights after those that are over.
    pub(super) fn save_parameters(&self, context: &StageContext, model: &mut Llama) -> Result<()> {
        self.save(context, |folder| Ok(write_parameters(&folder.join(PARAMETERS), model)?))
    }

    /// Goes back to the weights after the rounds that are over, if the latest saved state is one between rounds.
    pub(super) fn restore_parameters(&self, context: &StageContext, model: &mut Llama) -> Result<()> {
        match context.dir.checkpoint()?.filter(|_| self.round > 0 && self.step == 0) {
            Some(checkpoint) => Ok(read_parameters(&checkpoint.path.join(PARAMETERS), model)?),
            None => Ok(()),
        }
    }
}
