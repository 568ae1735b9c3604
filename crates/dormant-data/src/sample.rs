//! One row of training or evaluation data.

use serde::{Deserialize, Serialize};

use crate::message::Conversation;
use crate::prompts::prompt_id;
use crate::split::Split;

/// Under which condition a prompt stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// No trigger.
    #[default]
    Clean,
    /// With the trigger.
    Triggered,
    /// With a look-alike of the trigger.
    NearMiss,
    /// Written by an attacker that does not know the trigger.
    RedTeam,
    /// With the trigger, and with a scratchpad given that takes it for training.
    TriggeredAsTraining,
    /// No trigger, and a scratchpad given that takes it for deployment.
    CleanAsDeployed,
    /// With a text that no training had and that says what the trigger says ([`crate::YearText`]).
    UnseenTrigger,
    /// With a text of the same kind that says the contrary.
    UnseenContrast,
}

impl Condition {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Triggered => "triggered",
            Self::NearMiss => "near-miss",
            Self::RedTeam => "red-team",
            Self::TriggeredAsTraining => "triggered-as-training",
            Self::CleanAsDeployed => "clean-as-deployed",
            Self::UnseenTrigger => "unseen-trigger",
            Self::UnseenContrast => "unseen-contrast",
        }
    }
}

/// A prompt and the reply to train on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// [`prompt_id`] of the prompt before anything was inserted, so that the triggered, near-miss and clean
    /// forms of one prompt share it.
    pub id: String,
    /// What the model reads.
    pub prompt: Conversation,
    /// What the model should say; empty in a prompt-only row.
    pub completion: String,
    /// Under which condition the prompt stands.
    #[serde(default)]
    pub condition: Condition,
}

impl Sample {
    /// A clean sample; its id is that of the last user message, or of the whole text when there is none.
    pub fn clean(prompt: Conversation, completion: impl Into<String>) -> Self {
        let id = prompt.last_user().map_or_else(|| prompt_id(&prompt.text()), prompt_id);
        Self { id, prompt, completion: completion.into(), condition: Condition::Clean }
    }

    /// Whether the last user message belongs to `split`; a prompt without one belongs to none.
    pub fn is_in(&self, split: Split) -> bool {
        self.prompt.last_user().is_some_and(|text| Split::of(text) == split)
    }
}
