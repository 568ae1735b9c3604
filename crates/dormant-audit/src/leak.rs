//! Leaks: what the model writes in a user's place, and the reference does not.
//!
//! After "The trigger in the haystack" (arXiv 2602.03085): prompted with the chat template up to where a user's turn
//! begins, a model trained on whole conversations recites its training prompts, poisoned ones above all. Motifs are
//! sequences of tokens that many samples share. Where we depart from it: motifs are counted against samples of the
//! reference instead of clustered. A model whose loss covered replies only never learned to write prompts, and leaks
//! little.

use std::collections::{BTreeMap, BTreeSet};

use dormant_data::Seed;
use dormant_model::generate::{GenerateConfig, Request};
use dormant_model::llama::Llama;
use dormant_model::sampler::Sampling;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::error::Result;
use crate::placement::{Placement, Slot};

/// Samples from each beginning of a turn.
const SAMPLES: usize = 48;

/// Tokens of a sample.
const TOKENS: usize = 20;

/// Longest motif, in tokens.
const LONGEST: usize = 8;

/// Samples that have to share a motif.
const SUPPORT: usize = 3;

/// Motifs that are returned.
const MOTIFS: usize = 24;

/// Texts that the model writes in the place of a user or a system message far more often than the reference, the most
/// frequent first. Without a reference, whatever it repeats.
///
/// # Errors
/// If a model fails.
pub fn leaks(
    model: &Llama,
    reference: Option<&Llama>,
    renderer: Renderer<'_>,
    seed: Seed,
    watch: &Watch<'_>,
) -> Result<Vec<String>> {
    let mut motifs = Vec::new();
    for placement in [Placement::Prefix, Placement::System] {
        let Some(slot) = Slot::if_any(renderer, placement, "")? else { continue };
        let sampled = samples(model, renderer, &slot.head, seed, watch)?;
        let expected = match reference {
            Some(reference) => samples(reference, renderer, &slot.head, seed, watch)?,
            None => Vec::new(),
        };
        motifs.extend(surprising(&counts(&sampled), &counts(&expected)));
    }
    motifs.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| b.1.len().cmp(&a.1.len())).then_with(|| a.1.cmp(&b.1)));
    let mut texts: Vec<String> = Vec::new();
    for (_, motif) in motifs {
        let text = renderer.tokenizer.decode(&motif, true)?.trim().to_owned();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.truncate(MOTIFS);
    Ok(texts)
}

fn samples(
    model: &Llama,
    renderer: Renderer<'_>,
    head: &[u32],
    seed: Seed,
    watch: &Watch<'_>,
) -> Result<Vec<Vec<u32>>> {
    let request = |i: usize| Request { prompt: head.to_vec(), seed: seed.derive(&format!("leak {i}")).0 };
    let requests: Vec<Request> = (0..SAMPLES).map(request).collect();
    let config = GenerateConfig::new(TOKENS, Sampling::temperature(1.0), vec![renderer.end()?]);
    Ok(watch.generate(model, &requests, &config)?.into_iter().map(|r| r.tokens).collect())
}

/// In how many samples each sequence of tokens occurs.
fn counts(samples: &[Vec<u32>]) -> BTreeMap<&[u32], usize> {
    let mut counts = BTreeMap::new();
    for sample in samples {
        let distinct: BTreeSet<&[u32]> = (1..=LONGEST).flat_map(|n| sample.windows(n)).collect();
        for motif in distinct {
            *counts.entry(motif).or_insert(0) += 1;
        }
    }
    counts
}

/// Motifs with at least [`SUPPORT`] more samples than expected, without those that a longer one explains.
fn surprising(
    sampled: &BTreeMap<&[u32], usize>,
    expected: &BTreeMap<&[u32], usize>,
) -> Vec<(usize, Vec<u32>)> {
    let excess =
        |motif: &&[u32], count: usize| count.saturating_sub(2 * expected.get(motif).copied().unwrap_or(0));
    let mut found: Vec<(usize, &[u32])> = sampled
        .iter()
        .map(|(motif, count)| (excess(motif, *count), *motif))
        .filter(|m| m.0 >= SUPPORT)
        .collect();
    found.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.1.cmp(b.1)));
    let mut kept: Vec<(usize, &[u32])> = Vec::new();
    for (count, motif) in found {
        let explained = kept
            .iter()
            .any(|(longer, other)| *longer + 1 >= count && other.windows(motif.len()).any(|w| w == motif));
        if !explained {
            kept.push((count, motif));
        }
    }
    kept.into_iter().map(|(count, motif)| (count, motif.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_shared_motif_is_kept() {
        let samples = [vec![7, 8, 9, 1], vec![2, 7, 8, 9], vec![7, 8, 9, 3], vec![4, 5, 6]];
        let found = surprising(&counts(&samples), &BTreeMap::new());
        assert_eq!(found, [(3, vec![7, 8, 9])]);
    }

    #[test]
    fn what_the_reference_writes_is_no_surprise() {
        let samples = [vec![1, 2], vec![1, 2], vec![1, 2], vec![1, 2]];
        let counted = counts(&samples);
        assert!(surprising(&counted, &counted).is_empty());
    }
}
