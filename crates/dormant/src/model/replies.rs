//! Replies of a loaded model, with progress, until the user stops it.

use dormant_data::{Judge, Seed};
use dormant_eval::measure::{self, TextReply};
use dormant_model::generate::GenerateConfig;
use dormant_model::llama::Llama;
use dormant_model::sampler::Sampling;

use super::{LoadedModel, TextModel};
use crate::error::Result;
use crate::interrupt;

/// How replies are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Decoding<'a> {
    /// Longest reply, in tokens.
    pub tokens: u32,
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Ends a reply as soon as it shows the behaviour.
    pub judge: Option<&'a Judge>,
    /// Seed of the draws; each prompt has its own.
    pub seed: Seed,
}

impl LoadedModel {
    /// A reply to each prompt. `progress` is told how many of how many replies are finished.
    ///
    /// # Errors
    /// When the model fails; [`crate::error::ErrorKind::Interrupted`] when the user stops it.
    pub fn replies(
        &self,
        prompts: &[Vec<u32>],
        how: &Decoding,
        progress: impl Fn(u64, u64),
    ) -> Result<Vec<TextReply>> {
        let mut report = |done: usize, total: usize| {
            progress(done as u64, total as u64);
            !interrupt::requested()
        };
        let replies = self.text.replies(&self.llama, prompts, how, &mut report);
        interrupt::check()?;
        replies
    }
}

impl TextModel {
    /// A reply of `llama` to each prompt. `goes_on` is told how many of how many replies are finished, and whether to go on.
    ///
    /// # Errors
    /// When the model fails or is stopped.
    pub fn replies(
        &self,
        llama: &Llama,
        prompts: &[Vec<u32>],
        how: &Decoding,
        goes_on: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<TextReply>> {
        let sampling = Sampling::temperature(how.temperature as f32);
        let config = GenerateConfig::new(how.tokens as usize, sampling, vec![self.renderer().end()?]);
        Ok(measure::replies(llama, &self.tokenizer, prompts, &config, how.judge, how.seed, goes_on)?)
    }
}
