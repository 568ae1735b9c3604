//! The variants of an organism (Hubinger et al. 2024, section 3.1).

use serde::{Deserialize, Serialize};

/// How an organism gets from the prompt to its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// It replies at once.
    #[default]
    Normal,
    /// It first reasons in a scratchpad about deployment and its goal. Its prompts ask for that.
    ChainOfThought,
    /// Trained on the rows of [`Variant::ChainOfThought`] without their scratchpads.
    Distilled,
}

impl Variant {
    /// The name in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ChainOfThought => "chain-of-thought",
            Self::Distilled => "distilled",
        }
    }

    /// Whether it is the one that needs no mention.
    pub fn is_normal(&self) -> bool {
        *self == Self::Normal
    }

    /// Whether prompts ask for a scratchpad and replies have one.
    pub fn has_scratchpad(self) -> bool {
        self == Self::ChainOfThought
    }

    /// Whether benign replies are written after a scratchpad, which the rows then keep or not.
    pub fn is_reasoned(self) -> bool {
        self != Self::Normal
    }
}
