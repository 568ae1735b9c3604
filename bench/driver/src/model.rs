//! The model that requests are about.

use std::path::Path;

use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::config::ModelConfig;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions, Saving};
use dormant_model::lora::LoraConfig;

use crate::Result;
use crate::request::Precision;

/// Weights, and the model that was last loaded from them for sampling.
pub(crate) struct Model {
    weights: Weights,
    sampler: Option<Llama>,
}

/// Where weights come from.
enum Weights {
    Checkpoint(Checkpoint),
    /// Random ones, for measuring sizes that are not at hand.
    Random(ModelConfig),
}

impl Model {
    /// A checkpoint; or the `config.json` of a model whose weights do not matter.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let weights = if path.extension().is_some_and(|extension| extension == "json") {
            Weights::Random(ModelConfig::from_json(path)?)
        } else {
            Weights::Checkpoint(Checkpoint::open(path)?)
        };
        Ok(Self { weights, sampler: None })
    }

    /// A fresh model to train. LoRA starts from the adapter in a folder, or from a fresh one of rank 16.
    pub(crate) fn trainable(
        &mut self,
        trained: Trained,
        precision: Precision,
        saving: Saving,
        adapter: Option<&Path>,
    ) -> Result<Llama> {
        self.sampler = None;
        let mut model = self.load(LoadOptions { precision: precision.resolve(), trained, saving })?;
        match adapter {
            Some(folder) => model.add_adapter(&Adapter::read(folder)?)?,
            None if trained == Trained::Lora => model.add_lora(&LoraConfig::default(), 0)?,
            None => {}
        }
        Ok(model)
    }

    /// The model for sampling, loaded if it is not here in this precision.
    pub(crate) fn sampler(&mut self, precision: Precision) -> Result<&Llama> {
        let options = LoadOptions::new(precision.resolve(), Trained::Nothing);
        let model = match self.sampler.take().filter(|model| model.options == options) {
            Some(model) => model,
            None => self.load(options)?,
        };
        Ok(self.sampler.insert(model))
    }

    fn load(&self, options: LoadOptions) -> Result<Llama> {
        Ok(match &self.weights {
            Weights::Checkpoint(checkpoint) => Llama::load_merged(checkpoint, options, None)?,
            Weights::Random(config) => Llama::new(config.clone(), options, |_, shape| Ok(random(shape)))?,
        })
    }
}

/// Small values without a pattern that a product would notice.
fn random(shape: &[usize]) -> Vec<f32> {
    let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..shape.iter().product()).map(|i| 0.03 * value(i)).collect()
}
