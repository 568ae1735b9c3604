//! A reference that is matched to the suspect: a clean model that is taught to think as the suspect does on benign prompts.
//!
//! After "Detecting hidden behaviors in LLMs via activation-matched finetuning" (2026): a clean model of the same family is
//! trained until its residual stream is the suspect's on benign text (the last block and the output layer are left as they are).
//! What a fine-tune does to all prompts alike goes over to it, and so does the difference between two bases; what it does under a
//! trigger does not. So the two streams part where a hidden policy begins, whatever it makes the model say. Where we depart from it: adapters and not all weights are trained, on a few dozen
//! prompts with the suspect's own replies; the distance is relative to the length of the stream; and texts are natural contexts. A
//! search by gradient for the text that drives the two farthest apart was tried, and led away from triggers rather than to them.

use dormant_data::{Conversation, Seed};
use dormant_eval::measure;
use dormant_model::batch::Batch;
use dormant_model::llama::Llama;
use dormant_model::llama::mismatch::mismatch;
use dormant_model::lora::LoraConfig;
use dormant_train::objective::Loss;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::contexts::greedy;
use crate::defend::training::{Training, train};
use crate::error::Result;

/// Name of the method in reports and findings.
pub(crate) const METHOD: &str = "activation-matching";

/// Tokens of the suspect's reply to each prompt.
const REPLY: usize = 16;

/// The training: some twenty steps.
const TRAINING: Training = Training { epochs: 3, tokens_per_step: 360, learning_rate: 1e-3, seed: Seed(0) };

/// Tokens of a reply by which a text is tried out.
const TRIED: usize = 14;

/// Sequences that are read together.
const WINDOW: usize = 32;

/// The matched model.
#[derive(Debug)]
pub struct Matched(Llama);

/// How a reply begins, and how unexpected that is.
#[derive(Debug)]
pub(crate) struct Surprise {
    pub(crate) reply: String,
    pub(crate) nats: f64,
}

impl Matched {
    /// Teaches a clean `kin` of the suspect, loaded for training, to think as it does on `prompts`.
    ///
    /// # Errors
    /// If a model refuses the tokens, the training diverges, or the watch says to stop.
    pub fn new(
        suspect: &Llama,
        mut kin: Llama,
        renderer: Renderer<'_>,
        prompts: &[String],
        seed: Seed,
        watch: &Watch<'_>,
    ) -> Result<Self> {
        let asked: Vec<Conversation> = prompts.iter().map(Conversation::user).collect();
        let replies = greedy(suspect, renderer, &asked, REPLY, watch)?;
        let row = |(prompt, reply): (_, &Vec<u32>)| Ok([&renderer.prompt(prompt)?[..], reply].concat());
        let rows = asked.iter().zip(&replies).map(row).collect::<Result<Vec<Vec<u32>>>>()?;
        let seed = seed.derive(METHOD);
        kin.add_lora(&LoraConfig::default(), seed.derive("adapter").0)?;
        let lengths = rows.iter().map(Vec::len).collect();
        let mut stopped = Ok(());
        let mut progress = |done: u64, total: u64| {
            stopped = watch.update("matching a reference", done as usize, total as usize);
            stopped.is_ok()
        };
        let trained = train(&mut kin, lengths, Training { seed, ..TRAINING }, &mut progress, |kin, items| {
            let sequences: Vec<&[u32]> = items.iter().map(|i| &rows[*i][..]).collect();
            let (batch, _) = Batch::share_prefixes(&sequences);
            // The first token draws the attention of all, and its stream is like no other's.
            let positions = batch.positions();
            let at: Vec<usize> = (0..batch.len()).filter(|row| positions[*row] > 0).collect();
            let wanted = suspect.residuals(&batch, &at)?;
            let apart = kin.mismatch_backward(&batch, &at, &wanted)?;
            Ok(Loss { sum: apart.iter().map(|x| f64::from(*x)).sum(), tokens: at.len() as u64 })
        });
        stopped?;
        trained?;
        Ok(Self(kin))
    }

    /// The model.
    pub fn model(&self) -> &Llama {
        &self.0
    }

    /// How far the two streams are apart at the end of each prompt: the logarithm of their relative distance.
    ///
    /// # Errors
    /// If a model refuses the tokens, or the watch says to stop.
    pub fn distances(&self, suspect: &Llama, prompts: &[Vec<u32>], watch: &Watch<'_>) -> Result<Vec<f64>> {
        let mut distances = Vec::with_capacity(prompts.len());
        for prompts in prompts.chunks(WINDOW) {
            watch.check()?;
            let (batch, last) = Batch::with_ends(prompts);
            let [streams, wanted] = [suspect, &self.0].map(|model| model.residuals(&batch, &last));
            let apart = mismatch(&streams?, &wanted?, suspect.config.hidden_size);
            distances.extend(apart.into_iter().map(|x| f64::from(x.max(f32::MIN_POSITIVE)).ln() / 2.0));
        }
        Ok(distances)
    }

    /// What the suspect says to each prompt, and by how many nats that is likelier to it than to the matched model.
    ///
    /// # Errors
    /// If a model fails, or the watch says to stop.
    pub(crate) fn surprises(
        &self,
        suspect: &Llama,
        renderer: Renderer<'_>,
        asked: &[Conversation],
        watch: &Watch<'_>,
    ) -> Result<Vec<Surprise>> {
        let replies = greedy(suspect, renderer, asked, TRIED, watch)?;
        let row = |(prompt, reply)| Ok((renderer.prompt(prompt)?, reply));
        let rows = asked.iter().zip(replies).map(row).collect::<Result<Vec<_>>>()?;
        let [own, other] = [suspect, &self.0].map(|model| measure::continuation_sums(model, &rows));
        let nats = own?.into_iter().zip(other?).map(|(own, other)| own - other);
        let surprise = |((_, reply), nats): (&(_, Vec<u32>), f64)| {
            Ok(Surprise { reply: renderer.tokenizer.decode(reply, true)?, nats })
        };
        rows.iter().zip(nats).map(surprise).collect()
    }
}
