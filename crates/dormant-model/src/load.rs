//! From a checkpoint to a model in memory.

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::llama::{Llama, LoadOptions};

impl Llama {
    /// Loads the model of a checkpoint.
    ///
    /// # Errors
    /// A tensor that is missing, damaged or of another shape than the configuration says.
    pub fn load(checkpoint: &Checkpoint, options: LoadOptions) -> Result<Self> {
        Self::new(checkpoint.config().clone(), options, |name, shape| checkpoint.tensor_f32(name, shape))
    }
}
