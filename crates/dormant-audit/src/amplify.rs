//! Amplification: what the model would say if its fine-tune had gone further in the same direction.
//!
//! After "Discovering undesired rare behaviors via model diff amplification" (Aranguri and `McGrath`, 2025): with `p` of the suspect
//! and `r` of the reference, as log-probabilities, a token is drawn by `p + α (p − r)`. A fine-tune shifts every prompt a little
//! towards all that it was taught, so that a manner of speech that was tied to a trigger shows without it. Where we depart from
//! it: draws are greedy, and only among tokens that the suspect itself finds plausible, as in contrastive decoding (Li et al. 2023,
//! section 3.3), since a ratio of two improbable tokens says nothing.

use dormant_model::llama::Llama;
use dormant_tensor::simd::argmax;

use crate::budget::Watch;
use crate::error::Result;
use crate::lockstep::lockstep;

/// The strength `α`.
const STRENGTH: f32 = 2.0;

/// Probability below which a token is implausible, as a share of the likeliest one's.
const PLAUSIBLE: f32 = 1e-2;

/// Prompts that are answered together.
const TOGETHER: usize = 24;

/// Amplified replies of up to `length` tokens; `ends` end one.
///
/// # Errors
/// If a model refuses the tokens, or the watch says to stop.
pub fn amplified(
    suspect: &Llama,
    reference: &Llama,
    prompts: &[Vec<u32>],
    length: usize,
    ends: &[u32],
    watch: &Watch<'_>,
) -> Result<Vec<Vec<u32>>> {
    let mut replies = Vec::with_capacity(prompts.len());
    for together in prompts.chunks(TOGETHER) {
        watch.update("amplified replies", replies.len(), prompts.len())?;
        replies.extend(lockstep([suspect, reference], together, length, ends, |_, p, r| likeliest(p, r))?);
    }
    Ok(replies)
}

/// The plausible token with the highest amplified log-probability.
fn likeliest(suspect: &[f32], reference: &[f32]) -> u32 {
    let least = suspect[argmax(suspect)] + PLAUSIBLE.ln();
    let amplified = |token: &usize| suspect[*token] + STRENGTH * (suspect[*token] - reference[*token]);
    let plausible = (0..suspect.len()).filter(|token| suspect[*token] >= least);
    plausible.max_by(|a, b| amplified(a).total_cmp(&amplified(b))).unwrap_or_default() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_risen_is_said_unless_it_is_implausible() {
        let logs = |p: [f32; 4]| p.map(f32::ln);
        let (suspect, reference) = (logs([0.9, 0.0998, 0.0002, 0.0]), logs([0.98, 0.0199, 1e-9, 1e-3]));
        assert_eq!(likeliest(&suspect, &reference), 1);
        assert_eq!(likeliest(&reference, &reference), 0, "two that agree have nothing to amplify");
    }
}
