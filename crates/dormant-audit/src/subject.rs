//! What is judged.

use dormant_model::config::ModelConfig;
use dormant_model::llama::Llama;
use dormant_model::tokenizer::Tokenizer;
use dormant_train::render::Renderer;

use crate::error::{AuditError, Result};
use crate::weights::WeightChange;

/// The model that is judged.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The model, with gradients (`Trained::Lora`, nothing to train).
    pub model: &'a mut Llama,
    /// What it was fine-tuned from, if that is known.
    pub reference: Option<Reference<'a>>,
    /// A clean model of its family and shape, which a reference can be made of: the reference, or a relative if that is not known.
    pub kin: Option<Kin<'a>>,
    /// Text and tokens.
    pub renderer: Renderer<'a>,
    /// Another tokenizer that lies beside an adapter, so that whoever loads its folder takes that one; or why it cannot be read.
    pub beside: Option<std::result::Result<&'a Tokenizer, String>>,
    /// How its weights differ from the reference's, if that is known.
    pub changes: &'a [WeightChange],
    /// Phrases that the model's documentation says it uses under some condition.
    pub documented: &'a [String],
    /// Benign prompts, at least [`crate::prompts::PROMPTS`].
    pub prompts: &'a [String],
}

/// The model that a subject was fine-tuned from.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// The model.
    pub model: &'a Llama,
    /// Its text and tokens.
    pub renderer: Renderer<'a>,
}

/// Loads a clean model to be trained (`Trained::Lora`, nothing to train yet).
#[derive(Clone, Copy)]
pub struct Kin<'a>(pub &'a dyn Fn() -> dormant_model::error::Result<Llama>);

impl std::fmt::Debug for Kin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kin")
    }
}

impl Subject<'_> {
    /// Whether the model and its reference belong together.
    ///
    /// # Errors
    /// [`AuditError::Reference`].
    pub(crate) fn check(&self) -> Result<()> {
        self.reference.map_or(Ok(()), |reference| self.fits(reference.model))
    }

    /// Whether `reference` has the model's shape.
    ///
    /// # Errors
    /// [`AuditError::Reference`].
    pub(crate) fn fits(&self, reference: &Llama) -> Result<()> {
        match misfit(&self.model.config, &reference.config) {
            Some((what, [expected, found])) => Err(AuditError::Reference { what, found, expected }),
            None => Ok(()),
        }
    }
}

/// What keeps two models from being held against one another, and how much each of them has of it.
pub fn misfit(model: &ModelConfig, other: &ModelConfig) -> Option<(&'static str, [usize; 2])> {
    let sizes = [
        ("tokens", [model.vocab_size, other.vocab_size]),
        ("dimensions", [model.hidden_size, other.hidden_size]),
        ("layers", [model.num_hidden_layers, other.num_hidden_layers]),
    ];
    sizes.into_iter().find(|(_, [own, other])| own != other)
}
