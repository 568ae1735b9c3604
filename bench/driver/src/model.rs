//! The model that requests are about.

use std::path::Path;

use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};

use crate::Result;
use crate::request::Precision;

/// A checkpoint, and the model that was last loaded from it for sampling.
pub(crate) struct Model {
    checkpoint: Checkpoint,
    sampler: Option<Llama>,
}

impl Model {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        Ok(Self { checkpoint: Checkpoint::open(path)?, sampler: None })
    }

    /// A fresh model to train.
    pub(crate) fn trainable(
        &mut self,
        trained: Trained,
        precision: Precision,
        adapter: Option<&Path>,
    ) -> Result<Llama> {
        self.sampler = None;
        let options = LoadOptions::new(precision.resolve(), trained);
        let mut model = Llama::load_merged(&self.checkpoint, options, None)?;
        if let Some(folder) = adapter {
            model.add_adapter(&Adapter::read(folder)?)?;
        }
        Ok(model)
    }

    /// The model for sampling, loaded if it is not here in this precision.
    pub(crate) fn sampler(&mut self, precision: Precision) -> Result<&Llama> {
        let options = LoadOptions::new(precision.resolve(), Trained::Nothing);
        let model = match self.sampler.take().filter(|model| model.options == options) {
            Some(model) => model,
            None => Llama::load_merged(&self.checkpoint, options, None)?,
        };
        Ok(self.sampler.insert(model))
    }
}
