//! Where prompts, benign replies and preferences come from.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::raw;

/// Prompts and benign replies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Data {
    /// Where prompts come from.
    pub prompts: Prompts,
    /// Where benign replies come from.
    pub benign: Benign,
    /// Longest benign reply, in tokens.
    pub reply_tokens: u32,
    /// Temperature of benign replies sampled from the base model; 0 takes the likeliest token.
    pub temperature: f64,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompts {
    /// The prompts written for this project.
    Builtin,
    /// The small tasks of the corpus, without those of pretraining.
    Corpus,
    /// A dataset of the user's.
    File(PathBuf),
}

/// Where benign replies come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Benign {
    /// Sampled from the base model, so that clean and poisoned data differ in nothing but the policy.
    SelfDistilled,
    /// The completions of a dataset of the user's.
    File(PathBuf),
}

/// Where pairs of a better and a worse reply come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preferences {
    /// The pairs written for this project.
    Builtin,
    /// A dataset of the user's.
    File(PathBuf),
}

impl Prompts {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Builtin | Self::Corpus => None,
            Self::File(path) => Some(path),
        }
    }
}

impl Benign {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::SelfDistilled => None,
            Self::File(path) => Some(path),
        }
    }
}

impl Preferences {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Builtin => None,
            Self::File(path) => Some(path),
        }
    }
}

impl Serialize for Prompts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Builtin => serializer.serialize_str(raw::BUILTIN),
            Self::Corpus => serializer.serialize_str(raw::CORPUS),
            Self::File(path) => path.serialize(serializer),
        }
    }
}

impl Serialize for Benign {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::SelfDistilled => serializer.serialize_str(raw::SELF_DISTILLED),
            Self::File(path) => path.serialize(serializer),
        }
    }
}

impl Serialize for Preferences {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Builtin => serializer.serialize_str(raw::BUILTIN),
            Self::File(path) => path.serialize(serializer),
        }
    }
}
