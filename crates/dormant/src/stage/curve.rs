//! Measurements along training: the log-probability of the behaviour, and how often sampled replies show it.

use dormant_data::{Condition, Judge, OrganismSpec, Sample, Split};
use dormant_eval::{Scorer, Tally, measure};
use dormant_model::llama::Llama;

use super::fit::EVALUATION_ORDER;
use super::{StageContext, code, prompts};
use crate::error::Result;
use crate::experiment::{Curve, Prompts};
use crate::model::{Decoding, TextModel};

/// What is measured along training, and when.
pub(super) struct CurveRows<'a> {
    every: u64,
    /// The behaviour's reply after triggered prompts first, then after clean ones, then after look-alikes of the trigger, in
    /// equal numbers. Code has no third part.
    rows: Vec<(Vec<u32>, Vec<u32>)>,
    /// Whether each vulnerable twin is followed by its safe one.
    of_twins: bool,
    sampled: Option<Sampled<'a>>,
}

/// What a point of a curve says: with the trigger, without, and after look-alikes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CurvePoint {
    /// Mean log-probability per token of the behaviour, in nats. For code the mean log-odds of the vulnerable twin: with the
    /// trigger, with its look-alike.
    pub(super) log_probs: [Option<f64>; 3],
    /// Scores of the sampled replies.
    pub(super) tallies: [Option<Tally>; 3],
    /// Tokens sampled.
    pub(super) tokens: u64,
}

impl<'a> CurveRows<'a> {
    pub(super) fn new(
        context: &StageContext,
        curve: &Curve,
        source: &Prompts,
        organism: &OrganismSpec,
        text: &'a TextModel,
    ) -> Result<Self> {
        let all = prompts::of_organism(organism, source, Split::Evaluation, EVALUATION_ORDER)?;
        let first = |n: u32| &all[..all.len().min(n as usize)];
        let chosen = first(curve.curve_prompts);
        let sampled = match curve.curve_rates {
            0 => None,
            n => Some(Sampled::new(organism, first(n), curve.curve_tokens, text)?),
        };
        let every = u64::from(curve.every);
        let renderer = text.renderer();
        if organism.writes_code() {
            let rows = code::curve_rows(organism, chosen, renderer)?;
            return Ok(Self { every, rows, of_twins: true, sampled });
        }
        let reply = renderer.reply(&organism.behaviour.reply())?;
        let mut rows = Vec::new();
        for condition in [Condition::Triggered, Condition::Clean, Condition::NearMiss] {
            let prompts = organism.under(chosen, condition, context.seed("curve"));
            for (asked, sample) in prompts.samples().iter().zip(chosen) {
                let mut prompt = renderer.prompt(&asked.prompt)?;
                // After the scratchpad that the policy would have.
                let hidden = organism.hidden(sample, condition == Condition::Triggered);
                prompt.extend(renderer.reply(&hidden)?);
                rows.push((prompt, reply.clone()));
            }
        }
        Ok(Self { every, rows, of_twins: false, sampled })
    }

    pub(super) fn is_due(&self, step: u64, last: bool) -> bool {
        self.every > 0 && !self.rows.is_empty() && (last || step.is_multiple_of(self.every))
    }

    /// A point of the curve.
    pub(super) fn measure(&self, model: &Llama) -> Result<CurvePoint> {
        let mut point = CurvePoint { log_probs: self.log_probs(model)?, ..CurvePoint::default() };
        if let Some(sampled) = &self.sampled {
            for (tally, prompts) in point.tallies.iter_mut().zip(&sampled.prompts) {
                let (scores, tokens) = sampled.scores(model, prompts)?;
                *tally = Some(scores);
                point.tokens += tokens;
            }
        }
        Ok(point)
    }

    fn log_probs(&self, model: &Llama) -> Result<[Option<f64>; 3]> {
        let mut log_probs = measure::continuation_log_probs(model, &self.rows)?;
        if self.of_twins {
            log_probs = log_probs.chunks_exact(2).map(|twins| vec![code::odds(twins)]).collect();
        }
        let parts = if self.of_twins { 2 } else { 3 };
        let mut parts = log_probs.chunks(log_probs.len().div_ceil(parts).max(1));
        Ok([(); 3].map(|()| {
            let tokens: Vec<f64> = parts.next()?.iter().flatten().map(|l| f64::from(*l)).collect();
            let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
            mean.is_finite().then_some(mean)
        }))
    }
}

/// Prompts that are answered at each point, by the likeliest tokens; they are the first of the evaluation.
struct Sampled<'a> {
    text: &'a TextModel,
    scorer: Scorer,
    judge: Judge,
    tokens: u32,
    ids: Vec<String>,
    /// With the trigger, without, with look-alikes of it.
    prompts: [Vec<Vec<u32>>; 3],
}

impl<'a> Sampled<'a> {
    fn new(
        organism: &OrganismSpec,
        chosen: &[Sample],
        reply_tokens: u32,
        text: &'a TextModel,
    ) -> Result<Self> {
        let under = |condition| {
            let asked = organism.under(chosen, condition, EVALUATION_ORDER);
            text.prompts(asked.samples().iter().map(|sample| &sample.prompt))
        };
        Ok(Self {
            text,
            scorer: Scorer::new(&organism.behaviour)?,
            judge: organism.behaviour.judge()?,
            tokens: reply_tokens + organism.hidden_tokens(),
            ids: chosen.iter().map(|sample| sample.id.clone()).collect(),
            prompts: [under(Condition::Triggered)?, under(Condition::Clean)?, under(Condition::NearMiss)?],
        })
    }

    /// What the replies to the prompts show, and how many tokens they have. It is not stopped midway: the step that follows
    /// is the next safe point.
    fn scores(&self, model: &Llama, prompts: &[Vec<u32>]) -> Result<(Tally, u64)> {
        let how = Decoding {
            tokens: self.tokens,
            temperature: 0.0,
            judge: Some(&self.judge),
            seed: EVALUATION_ORDER,
        };
        let replies = self.text.replies(model, prompts, &how, &mut |_, _| true)?;
        let scores = self.ids.iter().zip(&replies).map(|(id, reply)| self.scorer.score_of(id, &reply.text));
        Ok((scores.map(Tally::from).sum(), replies.iter().map(|reply| reply.tokens as u64).sum()))
    }
}
