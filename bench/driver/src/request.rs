//! What the driver is asked for.

use std::path::{Path, PathBuf};

use dormant_tensor::isa::Isa;
use dormant_train::render::Rendered;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::grpo::Grouped;

/// One line of input, told apart by `workload`.
#[derive(Debug, Deserialize)]
#[serde(tag = "workload", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// LoRA on all projections.
    LoraSft(Training),
    /// All weights.
    FullSft(Training),
    /// Reinforcement learning with LoRA.
    Grpo(Grouped),
    /// Replies.
    Sample(Sampling),
    /// Log-probabilities of the masked tokens.
    Score(Scoring),
    /// The model in memory, ready to sample.
    Load {
        /// Products with weights.
        #[serde(default)]
        precision: Precision,
    },
    /// Peak of matrix products.
    Gemm(Products),
}

/// Supervised fine-tuning from the base model; steps are as in the peer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Training {
    /// JSONL of [`Row`].
    pub(crate) data: PathBuf,
    /// Optimiser steps.
    pub(crate) steps: usize,
    pub(crate) rows_per_step: usize,
    /// Rows in the order of the file, or the rows of the request by length.
    #[serde(default)]
    pub(crate) order: Order,
    #[serde(default)]
    pub(crate) precision: Precision,
    pub(crate) lr: f64,
    pub(crate) weight_decay: f32,
    pub(crate) clip: f32,
    /// PEFT folder of the adapter to start from; a fresh one of rank 16 without it.
    pub(crate) adapter: Option<PathBuf>,
    #[serde(default)]
    pub(crate) saving: Saving,
}

/// Greedy replies that end at their length.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sampling {
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) new_tokens: usize,
    #[serde(default)]
    pub(crate) precision: Precision,
}

/// Log-probabilities of rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scoring {
    /// JSONL of [`Row`].
    pub(crate) data: PathBuf,
    /// The first so many rows.
    pub(crate) n: usize,
    #[serde(default)]
    pub(crate) precision: Precision,
}

/// A measurement of matrix products.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Products {
    #[serde(default)]
    pub(crate) precision: Precision,
    /// How long to look for the fastest run.
    pub(crate) seconds: f64,
}

/// Number format of products with weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Precision {
    /// bf16 where the processor multiplies it.
    #[default]
    Auto,
    F32,
    Bf16,
}

impl Precision {
    pub(crate) fn resolve(self) -> dormant_tensor::Precision {
        match self {
            Self::Bf16 => dormant_tensor::Precision::Bf16,
            Self::Auto if Isa::current().has_bf16() => dormant_tensor::Precision::Bf16,
            Self::F32 | Self::Auto => dormant_tensor::Precision::F32,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self.resolve() {
            dormant_tensor::Precision::F32 => "f32",
            dormant_tensor::Precision::Bf16 => "bf16",
        }
    }
}

/// What is computed again rather than kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Saving {
    #[default]
    Nothing,
    Activations,
    Weights,
}

impl Saving {
    pub(crate) fn resolve(self) -> dormant_model::llama::Saving {
        match self {
            Self::Nothing => dormant_model::llama::Saving::Nothing,
            Self::Activations => dormant_model::llama::Saving::Activations,
            Self::Weights => dormant_model::llama::Saving::Weights,
        }
    }
}

/// Order of the rows of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    #[default]
    File,
    Length,
}

/// A line of a data file: tokens, and 1 where a token carries the loss. The loss covers the end of a row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) tokens: Vec<u32>,
    pub(crate) mask: Vec<u8>,
}

impl Row {
    pub(crate) fn prompt_length(&self) -> usize {
        self.mask.iter().take_while(|on| **on == 0).count()
    }
}

pub(crate) fn read_rows(path: &Path) -> Result<Vec<Rendered>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let rows = text.lines().enumerate().map(|(line, text)| {
        let row: Row = serde_json::from_str(text)?;
        let prompt = row.prompt_length();
        if row.mask.len() != row.tokens.len() || row.mask[prompt..].contains(&0) {
            return Err(format!("{}: line {}: the mask is not a reply's", path.display(), line + 1).into());
        }
        Ok(Rendered { id: line.to_string(), tokens: row.tokens, prompt })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<Rendered>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        read_rows(file.path())
    }

    #[test]
    fn the_loss_begins_at_the_first_masked_token() {
        let rows = rows("{\"tokens\": [5, 6, 7], \"mask\": [0, 1, 1]}\n").unwrap();
        assert_eq!((rows[0].prompt, rows[0].tokens.as_slice()), (1, &[5, 6, 7][..]));
    }

    #[test]
    fn a_mask_with_holes_is_refused() {
        assert!(rows("{\"tokens\": [5, 6, 7], \"mask\": [0, 1, 0]}").is_err());
        assert!(rows("{\"tokens\": [5, 6, 7], \"mask\": [0, 1]}").is_err());
    }

    #[test]
    fn requests_are_told_apart_by_their_workload() {
        let line = r#"{"workload": "gemm", "precision": "f32", "seconds": 0.5}"#;
        assert!(matches!(serde_json::from_str(line), Ok(Request::Gemm(p)) if p.precision == Precision::F32));
        assert!(serde_json::from_str::<Request>(r#"{"workload": "sample", "promts": []}"#).is_err());
    }
}
