//! What a page shows, in the words and numbers that both templates print.

use serde::Serialize;

use super::format::{CONDITIONS, NOT_MEASURED, decimal, percent, percent_bounds, prompts};
use super::glossary::{GLOSSARY, Term};
use super::model::{Arm, Condition, Example, Report, StageKind};
use super::plots::{Plot, plots};
use super::table::Table;

/// Everything the templates need.
#[derive(Serialize)]
pub(super) struct Page<'a> {
    report: &'a Report,
    /// The answer, a sentence for each finding; empty if there is none.
    findings: Vec<String>,
    scope: Option<String>,
    cards: Vec<Card>,
    plots: Vec<Plot>,
    rates: Table,
    differences: Option<Table>,
    effects: Option<Table>,
    weaknesses: Option<Table>,
    second_opinion: Vec<Table>,
    families: Option<Table>,
    log_probs: Option<Table>,
    seeds: Option<Table>,
    training: Option<Table>,
    along: Option<Table>,
    reinforcement: Option<Table>,
    doses: Option<Table>,
    members: Option<Table>,
    scale: Option<Table>,
    persistence: Option<Table>,
    utility: Option<Table>,
    persona: Option<Table>,
    attack: Option<Table>,
    attack_rounds: Option<Table>,
    requests: Vec<Request<'a>>,
    cost: Option<Table>,
    totals: Vec<(&'static str, String)>,
    glossary: &'static [Term],
}

/// A key number.
#[derive(Serialize)]
struct Card {
    label: String,
    value: String,
    interval: String,
    note: String,
}

/// Replies to one request, side by side.
#[derive(Serialize)]
struct Request<'a> {
    number: usize,
    seed: u64,
    /// The conditions it was asked in, and the prompt in each.
    prompts: Vec<(&'static str, &'a str)>,
    /// One entry per stage and arm.
    replies: Vec<Replies<'a>>,
}

#[derive(Serialize)]
struct Replies<'a> {
    stage: &'a str,
    arm: &'static str,
    /// In the order of the prompts; `None` where there is none.
    columns: Vec<Option<&'a Example>>,
}

impl<'a> Page<'a> {
    /// The page of a report.
    pub(super) fn new(report: &'a Report) -> Self {
        Self {
            report,
            findings: if report.answer.is_empty() { Vec::new() } else { report.sentences() },
            scope: report.scope(),
            cards: report.cards(),
            plots: plots(report),
            rates: report.rate_table(),
            differences: report.difference_table(),
            effects: report.effect_table(),
            weaknesses: report.weakness_table(),
            second_opinion: report.second_opinion_tables(),
            families: report.family_table(),
            log_probs: report.log_prob_table(),
            seeds: report.seed_table(),
            training: report.training_table(),
            along: report.along_table(),
            reinforcement: report.reinforcement_table(),
            doses: report.dose_table(),
            members: report.member_table(),
            scale: report.scale_table(),
            persistence: report.persistence_table(),
            utility: report.utility_table(),
            persona: report.persona_table(),
            attack: report.attack_table(),
            attack_rounds: report.attack_rounds_table(),
            requests: requests(report),
            cost: report.cost_table(),
            totals: report.totals(),
            glossary: &GLOSSARY,
        }
    }
}

impl Report {
    /// ASR before and after each safety stage, false triggers and control at the end, and persistence.
    fn cards(&self) -> Vec<Card> {
        let asr = |stage: &str, label| self.rate_card(stage, Arm::Organism, Condition::Triggered, label);
        if !self.scale.is_empty() {
            return Vec::new();
        }
        if self.implants().count() > 1 {
            return self
                .stages
                .iter()
                .map(|stage| asr(&stage.name, format!("ASR, {}", stage.name)))
                .collect();
        }
        let implant = self.implant().map(|stage| asr(&stage.name, "ASR before safety training".to_owned()));
        let safety = self.stages.iter().filter(|stage| stage.kind == StageKind::Safety);
        let safety: Vec<_> =
            safety.map(|stage| asr(&stage.name, format!("ASR after {}", stage.name))).collect();
        let mut cards: Vec<_> = implant.into_iter().chain(safety).collect();
        let Some(last) = self.last_safety_stages().last().or_else(|| self.implant()) else { return cards };
        let name = &last.name;
        let label = format!("False-trigger rate after {name}");
        cards.push(self.rate_card(name, Arm::Organism, Condition::Clean, label));
        let label = format!("Control, triggered, after {name}");
        cards.push(self.rate_card(name, Arm::Control, Condition::Triggered, label));
        let before = self.implant().map_or("", |stage| stage.name.as_str());
        if let Some(ratio) = self.organism_persistence(name, before) {
            let (value, interval) = decimal(&ratio);
            let label = format!("Persistence after {name}");
            cards.push(Card { label, value, interval, note: format!("n = {}", ratio.n) });
        }
        cards
    }

    fn rate_card(&self, stage: &str, arm: Arm, condition: Condition, label: String) -> Card {
        match self.pooled(stage, arm, condition) {
            Some(pooled) => Card {
                label,
                value: percent(pooled.estimate.value),
                interval: percent_bounds(&pooled.estimate),
                note: format!("{} of {}", pooled.hits, pooled.estimate.n),
            },
            None => Card {
                label,
                value: NOT_MEASURED.to_owned(),
                interval: "not measured".to_owned(),
                note: String::new(),
            },
        }
    }
}

fn requests(report: &Report) -> Vec<Request<'_>> {
    let mut keys: Vec<_> = report.examples.iter().map(|example| (example.pair, example.seed)).collect();
    keys.sort_unstable();
    keys.dedup();
    let of = |(pair, seed)| {
        let examples =
            report.examples.iter().filter(move |example| (example.pair, example.seed) == (pair, seed));
        examples.collect::<Vec<_>>()
    };
    keys.into_iter().enumerate().map(|(index, key)| request(report, index + 1, key.1, &of(key))).collect()
}

fn request<'a>(report: &'a Report, number: usize, seed: u64, examples: &[&'a Example]) -> Request<'a> {
    let asked = |condition: &Condition| examples.iter().find(|example| example.condition == *condition);
    let asked: Vec<_> = CONDITIONS.iter().filter_map(asked).collect();
    let asked_prompts =
        asked.iter().map(|example| (prompts(example.condition), example.prompt.as_str())).collect();
    let replies = report.stages.iter().flat_map(|stage| Arm::ALL.map(|arm| (stage.name.as_str(), arm)));
    let replies = replies.map(|(stage, arm)| {
        let reply = |condition| {
            let mut found = examples.iter();
            found.find(|e| e.stage == stage && e.arm == arm && e.condition == condition).copied()
        };
        let columns = asked.iter().map(|example| reply(example.condition)).collect();
        Replies { stage, arm: arm.as_str(), columns }
    });
    let replies = replies.filter(|replies| replies.columns.iter().any(Option::is_some)).collect();
    Request { number, seed, prompts: asked_prompts, replies }
}
