//! Does the direction of a probe cause the behaviour, or does it only go along with it?
//!
//! Along the direction, prompts with the trigger lie a step away from the same prompts without it. Steering takes that step on
//! the prompts without the trigger, and ablation takes it back on those with it, at every token after the probe's block. What is
//! measured is the log-probability of the beginning of the reply that the model gives with the trigger. Random directions
//! take steps of the same length. The whole step, in all directions, shows how much the block could do.

use dormant_data::{Conversation, Seed};
use dormant_eval::{Estimate, measure};
use dormant_model::llama::Llama;
use dormant_train::render::Renderer;
use serde::Serialize;

use super::{Activations, Probe};
use crate::budget::Watch;
use crate::contexts::greedy;
use crate::error::Result;

/// Random directions that a step is held against.
const RANDOM: usize = 8;

/// Tokens of the reply that is watched for.
const TOKENS: usize = 6;

/// What a step along the probe's direction does to the log-probability of the reply given with the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Causal {
    /// The block after which the step is taken, from 0.
    pub layer: usize,
    /// Rise on prompts without the trigger by the step towards it.
    pub steering: Option<Effect>,
    /// Fall on prompts with the trigger by the step away from it.
    pub ablation: Option<Effect>,
}

/// Change of a log-probability, in nats, over prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// By a step along the probe.
    pub probe: Estimate,
    /// By a step of the same length in random directions: the mean of each, over directions.
    pub random: Estimate,
    /// By the whole step that the trigger takes, in all directions: what could be had.
    pub whole: Estimate,
}

/// What was read before any step.
#[derive(Debug)]
pub(super) struct Read<'a> {
    /// The direction, in each block.
    pub(super) probe: &'a Probe,
    /// The block where it is looked at.
    pub(super) layer: usize,
    /// The prompts with the trigger.
    pub(super) triggered: &'a Activations,
}

/// Takes the steps. `pairs` are the same prompts with the trigger and without.
///
/// # Errors
/// If the model fails, or the watch says to stop.
pub(super) fn causal(
    model: &Llama,
    renderer: Renderer<'_>,
    read: &Read<'_>,
    pairs: [&[Conversation]; 2],
    seed: Seed,
    watch: &Watch<'_>,
) -> Result<Causal> {
    watch.update("steering", 0, 1)?;
    let replies = greedy(model, renderer, pairs[0], TOKENS, watch)?;
    let rows = |prompts: &[Conversation]| -> Result<Vec<_>> {
        let row = |(p, reply): (_, &Vec<u32>)| Ok((renderer.prompt(p)?, reply.clone()));
        prompts.iter().zip(&replies).map(row).collect()
    };
    let [with, without] = [rows(pairs[0])?, rows(pairs[1])?];
    let layer = read.layer;
    let unit = unit(&read.probe.0[layer]);
    let there = read.triggered.middle(layer);
    let here = Activations::of_prompts(model, renderer, pairs[1], watch)?.middle(layer);
    // All that the trigger does to the stream, and the part of it along the probe.
    let whole: Vec<f32> = there.iter().zip(&here).map(|(there, here)| there - here).collect();
    let length: f32 = whole.iter().zip(&unit).map(|(w, u)| w * u).sum();
    let along = |unit: &[f32]| -> Vec<f32> { unit.iter().map(|u| length * u).collect() };
    let random = (0..RANDOM).map(|i| {
        let seed = seed.derive(&format!("random step {i}"));
        along(&self::unit(&Probe::random(layer + 1, unit.len(), seed).0[layer]))
    });
    let random: Vec<Vec<f32>> = random.collect();
    let effect = |rows: &[(Vec<u32>, Vec<u32>)], sign: f32| -> Result<Option<Effect>> {
        let sum = |row: &Vec<f32>| row.iter().map(|l| f64::from(*l)).sum::<f64>();
        let plain = measure::continuation_log_probs(model, rows)?;
        let changes = |step: &[f32]| -> Result<Vec<f64>> {
            watch.check()?;
            let shift: Vec<f32> = step.iter().map(|s| sign * s).collect();
            let shifted = measure::continuation_log_probs_through(model, rows, |batch| {
                model.hidden_shifted(batch, layer, &shift)
            })?;
            Ok(shifted.iter().zip(&plain).map(|(shifted, plain)| sum(shifted) - sum(plain)).collect())
        };
        let random = random.iter().map(|step| Ok(mean(&changes(step)?))).collect::<Result<Vec<_>>>()?;
        let estimates = [changes(&along(&unit))?, random, changes(&whole)?].map(|c| Estimate::mean(&c));
        let [Some(probe), Some(random), Some(whole)] = estimates else { return Ok(None) };
        Ok(Some(Effect { probe, random, whole }))
    };
    Ok(Causal { layer, steering: effect(&without, 1.0)?, ablation: effect(&with, -1.0)? })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The direction with length 1.
fn unit(direction: &[f32]) -> Vec<f32> {
    let length = direction.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    direction.iter().map(|x| x / length).collect()
}

impl Causal {
    /// What the steps show, in words.
    pub fn in_words(&self) -> &'static str {
        let rises = |e: Effect| e.probe.low > e.random.high.max(0.0);
        let falls = |e: Effect| e.probe.high < e.random.low.min(0.0);
        match (self.steering.is_some_and(rises), self.ablation.is_some_and(falls)) {
            (true, true) => "a step along it brings the behaviour closer, and the step back takes it away",
            (true, false) => {
                "a step along it brings the behaviour closer, but the step back does not take it away"
            }
            (false, true) => {
                "the step back takes the behaviour away, but a step along it does not bring it closer"
            }
            (false, false) => "steps along it do no more than random ones",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_counts_beyond_random_steps_only() {
        let estimate = |value: f64| Estimate { value, low: value - 0.5, high: value + 0.5, n: 40 };
        let effect = |probe: f64, random: f64| {
            Some(Effect { probe: estimate(probe), random: estimate(random), whole: estimate(9.0) })
        };
        let words = |steering, ablation| Causal { layer: 3, steering, ablation }.in_words();
        assert!(words(effect(8.0, 0.1), effect(-6.0, -0.2)).contains("and the step back takes it away"));
        assert!(words(effect(8.0, 0.1), effect(-0.3, -0.2)).contains("does not take it away"));
        assert!(words(effect(2.0, 1.8), effect(-0.3, -0.2)).contains("no more than random"));
        assert!(words(effect(-5.0, 0.0), None).contains("no more than random"), "the wrong way round");
    }

    #[test]
    fn a_unit_has_length_one() {
        assert_eq!(unit(&[3.0, 4.0]), [0.6, 0.8]);
        assert!(unit(&[0.0, 0.0]).iter().all(|x| *x == 0.0));
    }
}
