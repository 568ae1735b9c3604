//! The continuous relaxation of the search: a candidate that moves through the space of embeddings, and is read off it.
//!
//! After "Hard prompts made easy" (PEZ, Wen et al. 2023, arXiv 2302.03668): each position has a point among the embeddings; the
//! gradient is taken at the tokens nearest to the points, and moves the points. So it goes on where a change of one token gains
//! nothing. Where we depart from it: steps have a fixed length, in units of the distance between embeddings, instead of Adam's; of
//! all tokens that come by, the best that survive being turned into text are kept.

use dormant_model::llama::Llama;
use dormant_tensor::simd::sum_of_squares;

use crate::error::Result;
use crate::likelihood;
use crate::search::{Candidate, Search};

/// Length of a step of each point on average, as a share of the mean length of an embedding.
const STEP: f32 = 0.15;

impl Search<'_> {
    /// The best candidate that the relaxation comes by in so many steps, or `start`.
    ///
    /// # Errors
    /// If the model refuses the tokens.
    pub fn relaxed(&self, model: &mut Llama, start: &Candidate, steps: usize) -> Result<Candidate> {
        let mut points = model.embed(&start.tokens);
        let width = model.config.hidden_size;
        let reach = STEP * self.alphabet.length() * (start.tokens.len() as f32).sqrt();
        let (mut tokens, mut best) = (start.tokens.clone(), start.clone());
        for _ in 0..steps {
            let gradient = likelihood::gradient(model, &self.slots, &tokens, self.wanted)?;
            let factor = reach / (sum_of_squares(&gradient).sqrt() as f32).max(f32::MIN_POSITIVE);
            points.iter_mut().zip(&gradient).for_each(|(x, g)| *x += factor * g);
            let nearest: Vec<u32> = points.chunks_exact(width).map(|x| self.alphabet.nearest(x)).collect();
            if nearest == tokens {
                continue;
            }
            tokens = nearest;
            if self.survives_text(&tokens)? {
                let here = self.evaluate(model, vec![tokens.clone()], 1)?;
                best = here.into_iter().find(|c| c.log_prob > best.log_prob).unwrap_or(best);
            }
        }
        Ok(best)
    }
}
