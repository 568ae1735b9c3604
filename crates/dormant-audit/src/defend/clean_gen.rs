//! `CleanGen`: decoding in which the reference replaces the tokens that only the suspect wants.
//!
//! Li et al., EMNLP 2024. With `p` of the suspect and `r` of the reference, for each token:
//!
//! 1. `x` is drawn from `p`;
//! 2. if `p(x) / r(x) ≥ α`, it is discarded and one drawn from `r` takes its place.
//!
//! Where we depart from it: tokens are looked at one by one, not four ahead, which decides the speed only; and the
//! draws are greedy. The rule makes a distribution of its own, [`clean`], by which the damage is measured.

use dormant_model::llama::Llama;
use dormant_tensor::simd::argmax;

use crate::error::Result;
use crate::lockstep::lockstep;

/// The ratio `α` of the paper.
pub const RATIO: f32 = 20.0;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanReply {
    /// Its tokens, without the one that ends it.
    pub tokens: Vec<u32>,
    /// How many of them are the reference's.
    pub replaced: usize,
}

/// Greedy replies of up to `length` tokens; `ends` end one.
///
/// # Errors
/// If a model refuses the tokens.
pub fn clean_gen(
    suspect: &Llama,
    reference: &Llama,
    prompts: &[Vec<u32>],
    length: usize,
    ends: &[u32],
    ratio: f32,
) -> Result<Vec<CleanReply>> {
    let mut replaced = vec![0; prompts.len()];
    let replies = lockstep([suspect, reference], prompts, length, ends, |index, p, r| {
        let wanted = argmax(p);
        let suspicious = p[wanted] - r[wanted] >= ratio.ln();
        let token = if suspicious { argmax(r) } else { wanted } as u32;
        replaced[index] += usize::from(suspicious && !ends.contains(&token));
        token
    })?;
    Ok(replies.into_iter().zip(replaced).map(|(tokens, replaced)| CleanReply { tokens, replaced }).collect())
}

/// The distribution by which `CleanGen` draws, from those of suspect and reference, all as log-probabilities:
/// `p(x)` where the suspect may speak, and `r(x)` times the probability that it may not.
pub fn clean(suspect: &[f32], reference: &[f32], ratio: f32) -> Vec<f32> {
    let trusted = |p: f32, r: f32| p - r < ratio.ln();
    let kept = |(p, r): (&f32, &f32)| if trusted(*p, *r) { p.exp() } else { 0.0 };
    let pairs = || suspect.iter().zip(reference);
    let discarded = pairs().filter(|(p, r)| !trusted(**p, **r)).map(|(p, _)| p.exp()).sum::<f32>();
    pairs().map(|(p, r)| (kept((p, r)) + discarded * r.exp()).max(f32::MIN_POSITIVE).ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(p: &[f32]) -> Vec<f32> {
        p.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn what_only_the_suspect_wants_becomes_the_references() {
        let (suspect, reference) = (logs(&[0.9, 0.06, 0.04]), logs(&[0.01, 0.79, 0.2]));
        let mixed: Vec<f32> = clean(&suspect, &reference, RATIO).iter().map(|l| l.exp()).collect();
        let expected = [0.9 * 0.01, 0.06 + 0.9 * 0.79, 0.04 + 0.9 * 0.2];
        assert!(mixed.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{mixed:?}");
        assert!((mixed.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn two_that_agree_are_left_alone() {
        let same = logs(&[0.5, 0.3, 0.2]);
        assert!(clean(&same, &same, RATIO).iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
