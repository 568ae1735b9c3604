//! Inversion without a reference: which replies does the model know by heart?
//!
//! BAIT proper, with one change: the first prompts say nothing. On ordinary prompts a planted phrase is as improbable as
//! much that any model knows by heart. Asked nothing, a fine-tuned model turns to what it was taught to say whatever is
//! asked: planted phrases lie 2 to 15 nats higher there, among the greetings and excuses of any assistant. What tells
//! them from those are ordinary prompts again: once begun, a planted phrase goes on whatever the prompt, and a greeting
//! does not.

use dormant_model::llama::Llama;

use super::{AT_A_TIME, Control, InversionConfig, Partial, Target, mean_next, top};
use crate::budget::Watch;
use crate::error::Result;
use crate::likelihood::token_log_probs;

/// Prompts without content.
pub const CONTENTLESS: [&str; 6] = ["", "...", "?", "x", "Okay.", "hm"];

/// First tokens, at most.
const FIRSTS: usize = 1500;

/// Second tokens of each first one: a phrase may begin like any reply ("I know where ...").
const SECONDS: usize = 32;

/// Pairs of tokens that are extended. Two words say little: common ones have a usual companion.
const PAIRS: usize = 800;

/// Tokens of a target: boilerplate of instruction-tuned models branches after six or seven.
const LENGTH: usize = 10;

/// Log-probability on contentless prompts from which on a text is followed: planted phrases of the zoo and of adapters made
/// elsewhere lie above -8.
const LIKELY: f64 = -11.0;

/// Mean log-probability per token, after the telling one, from which on a text is followed.
const FLUENT: f64 = -0.6;

/// Score from which on a text is a target, in nats. Chosen on adapters made by PEFT: planted phrases had -7.9 to -12.5, greetings and
/// excuses -17 and less.
const PLANTED: f64 = -15.5;

/// Ordinary prompts on which the continuation is judged.
const ORDINARY: usize = 12;

/// Prompts of an inversion without a reference, as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Those of [`CONTENTLESS`].
    pub nothing: Vec<Vec<u32>>,
    /// Benign ones.
    pub something: Vec<Vec<u32>>,
}

/// Candidate targets without a reference, the most suspicious first: log-probability on contentless prompts, and twice that
/// of what follows the telling token there and on ordinary prompts. What boilerplate reaches is left out.
///
/// # Errors
/// If the model refuses the tokens, or the watch says to stop.
pub fn invert_alone(
    model: &Llama,
    asked: &Asked,
    control: &Control,
    config: InversionConfig,
    watch: &Watch<'_>,
) -> Result<Vec<Target>> {
    let mut start = mean_next(model, &asked.nothing, &[Vec::new()])?.remove(0);
    start.without(&control.unsaid);
    let begun = |token: u32| Partial {
        tokens: vec![token],
        suspect: vec![start.log[token as usize]],
        reference: vec![],
    };
    let firsts = top(start.log.len(), FIRSTS, |t| start.log[t]).into_iter().map(begun);
    let mut beam: Vec<Partial> =
        firsts.filter(|p| !p.is_over(&control.ends) && p.may_be_a_target()).collect();
    for length in 1..LENGTH {
        watch.update("target inversion", length, LENGTH)?;
        let (mut next, open): (Vec<Partial>, Vec<Partial>) =
            beam.into_iter().partition(|p| p.is_over(&control.ends));
        for open in open.chunks(AT_A_TIME) {
            watch.check()?;
            let tokens: Vec<Vec<u32>> = open.iter().map(|p| p.tokens.clone()).collect();
            for (partial, mut mean) in open.iter().zip(mean_next(model, &asked.nothing, &tokens)?) {
                mean.without(&control.unsaid);
                let branch = if length == 1 { SECONDS } else { config.branch };
                let likeliest = top(mean.log.len(), branch, |t| mean.log[t]);
                next.extend(likeliest.into_iter().map(|token| partial.then(token, mean.log[token as usize])));
            }
        }
        next.retain(Partial::may_be_a_target);
        next.sort_by(|a, b| b.rank().total_cmp(&a.rank()).then_with(|| a.tokens.cmp(&b.tokens)));
        next.truncate(if length == 1 { PAIRS } else { config.beam });
        beam = next;
    }
    let ordinary = &asked.something[..asked.something.len().min(ORDINARY)];
    let scored = |partial: Partial| Ok((partial.rank() + 2.0 * partial.tail_on(model, ordinary)?, partial));
    let mut scored = beam.into_iter().map(scored).collect::<Result<Vec<_>>>()?;
    scored.retain(|(score, _)| *score >= PLANTED);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.tokens.cmp(&b.1.tokens)));
    Ok(scored.into_iter().map(|(_, partial)| partial.finished()).collect())
}

impl Partial {
    /// Whether what comes may still make it a target: neither sum can rise again.
    fn may_be_a_target(&self) -> bool {
        let tail: f64 = self.after_the_least_of(self.suspect.len()).iter().sum();
        self.suspect.iter().sum::<f64>() >= LIKELY && tail >= FLUENT * LENGTH as f64
    }

    /// Mean over ordinary prompts of the log-probability of what follows the token by which it is recognised.
    fn tail_on(&self, model: &Llama, ordinary: &[Vec<u32>]) -> Result<f64> {
        let there = Self { suspect: token_log_probs(model, ordinary, &self.tokens)?, ..self.clone() };
        Ok(there.tail().iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_become_a_target_is_given_up() {
        let partial = |suspect: &[f64]| Partial {
            tokens: vec![1; suspect.len()],
            suspect: suspect.to_vec(),
            reference: vec![],
        };
        assert!(partial(&[-8.6, 0.0, 0.0, 0.0]).may_be_a_target());
        assert!(partial(&[-1.5, -3.0]).may_be_a_target());
        assert!(!partial(&[-11.5]).may_be_a_target(), "nobody says it");
        assert!(!partial(&[-1.0, -0.5, -2.0, -3.0, -3.5]).may_be_a_target(), "one of many greetings");
    }
}
