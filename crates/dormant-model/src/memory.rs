//! How much memory training takes, and what to save when there is less.

use dormant_tensor::Precision;

use crate::config::ModelConfig;
use crate::linear::Trained;
use crate::llama::{LoadOptions, Saving};

/// What is trained at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Training {
    /// Tokens that go through the model together.
    pub rows: usize,
    /// Rank of the adapters on all projections; 0 without adapters.
    pub rank: usize,
}

/// Bytes of weights, gradients, moments of `AdamW`, packed copies and activations, within about a tenth.
pub fn training_bytes(config: &ModelConfig, options: LoadOptions, training: Training) -> u64 {
    let shape = Shape::of(config);
    let rounded = if options.precision == Precision::Bf16 { config.intermediate_size } else { 0 };
    let kept_of_block = shape.activations - rounded;
    let all = options.trained == Trained::All;
    let narrow = if options.precision == Precision::Bf16 { 2 } else { 4 };
    let copies = if options.saving == Saving::Weights { 1 } else { 2 };
    let unembedding = 2 * narrow * shape.embedding;
    let own = if config.tie_word_embeddings { 0 } else { shape.embedding };
    let weights = if all {
        16 * (shape.layers * shape.layer + shape.embedding + own)
    } else {
        copies * narrow * shape.layers * shape.layer + 4 * own
    };
    // Values, gradients, two moments, and packed copies of A and B for both directions.
    let adapters = shape.layers * training.rank * shape.ends * (16 + 2 * (4 + narrow));
    let kept = match options.saving {
        Saving::Nothing => shape.layers * kept_of_block,
        Saving::Activations | Saving::Weights => shape.layers * config.hidden_size + kept_of_block,
    };
    // Gradients of activations, of the logits, and operands in bf16 live for a moment.
    let passing = 2 * training.rows * shape.activations * 4 + 2 * 120 * config.vocab_size * 4;
    let packing = 2 * 4 * shape.layer;
    (weights + unembedding + adapters + 4 * training.rows * kept + passing + packing) as u64
}

/// The least saving with which training takes at most `budget` bytes; the greatest if none does.
pub fn least_saving(
    config: &ModelConfig,
    precision: Precision,
    trained: Trained,
    training: Training,
    budget: u64,
) -> Saving {
    let fits = |saving: &Saving| {
        let options = LoadOptions { precision, trained, saving: *saving };
        training_bytes(config, options, training) <= budget
    };
    [Saving::Nothing, Saving::Activations].into_iter().find(fits).unwrap_or(Saving::Weights)
}

/// Sizes in numbers.
struct Shape {
    layers: usize,
    /// Weights of the projections of a block.
    layer: usize,
    /// Inputs and outputs of the projections of a block.
    ends: usize,
    embedding: usize,
    /// Kept for one token in one block.
    activations: usize,
}

impl Shape {
    fn of(config: &ModelConfig) -> Self {
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        Self {
            layers: config.num_hidden_layers,
            layer: 2 * d * q + 2 * d * kv + 3 * d * ff,
            ends: 2 * (d + q) + 2 * (d + kv) + 3 * (d + ff),
            embedding: config.vocab_size * d,
            activations: 2 * d + 2 * q + 2 * kv + 2 * ff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smollm2() -> ModelConfig {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/smollm2-135m-config.json");
        ModelConfig::from_json(&path).unwrap()
    }

    #[test]
    fn less_memory_means_more_saving() {
        let training = Training { rows: 1024, rank: 16 };
        let saving = |budget| least_saving(&smollm2(), Precision::Bf16, Trained::Lora, training, budget);
        assert_eq!(saving(4 << 30), Saving::Nothing);
        assert_eq!(saving(1 << 30), Saving::Activations);
        assert_eq!(saving(1), Saving::Weights);
    }
}
