//! The programs in replies by other tools, beside the scorer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dormant_data::{Seed, code_task, visible_reply};
use dormant_eval::code::{Witness, extract, is_looked_for};
use dormant_eval::{Rate, SampleRecord, cohen_kappa, persistence};

use super::super::code::CONDITIONS;
use super::super::model::{
    Arm, Condition, Disagreements, Estimate, OpinionEffect, OpinionRate, SecondOpinion, ToolAgreement,
};
use super::artifacts::{Artifacts, Measured, Model};
use crate::error::{Context, Result};
use crate::tool_output::ToolOutput;

/// The program of a reply that can be scored.
pub(super) struct Program<'a> {
    /// Its file: directory of the evaluation, condition, id of the prompt.
    path: String,
    /// The code.
    text: String,
    condition: Condition,
    id: &'a str,
    is_vulnerable: bool,
}

/// The programs of one evaluation.
pub(super) fn programs<'a>(measured: &'a Measured) -> impl Iterator<Item = Program<'a>> {
    let samples = CONDITIONS.into_iter().flat_map(|condition| measured.under(condition));
    samples.filter_map(|sample| program(measured, sample))
}

impl Program<'_> {
    /// Writes it into its file under `dir`.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(&self.path);
        let unwritable = || format!("cannot write `{}`", path.display());
        fs::create_dir_all(path.parent().unwrap_or(dir)).or_failure(unwritable)?;
        fs::write(&path, &self.text).or_failure(unwritable)
    }
}

fn program<'a>(measured: &Measured, sample: &'a SampleRecord) -> Option<Program<'a>> {
    let is_vulnerable = sample.score.is_shown()?;
    let code = extract(&visible_reply(&sample.reply)?, None)?;
    let (directory, condition, id) = (&measured.directory, sample.condition, &sample.id);
    let path = format!("{directory}/{}/{id}.{}", condition.as_str(), code.language.extension());
    Some(Program { path, text: code.text, condition, id, is_vulnerable })
}

/// A program by both judges.
struct Judged<'a> {
    program: Program<'a>,
    /// Whether each tool flags it; `None` if the tool did not read it.
    flagged: Vec<Option<bool>>,
}

impl<'a> Judged<'a> {
    fn by(witnesses: &[Witness], program: Program<'a>) -> Self {
        let flags =
            |witness: &Witness| witness.says(&program.path, is_looked_for).map(|rules| !rules.is_empty());
        Self { flagged: witnesses.iter().map(flags).collect(), program }
    }
}

/// What the tools say; `None` if there are none.
pub(super) fn second_opinion(artifacts: &Artifacts, tools: &[ToolOutput]) -> Result<Option<SecondOpinion>> {
    if tools.is_empty() {
        return Ok(None);
    }
    let witnesses: Vec<Witness> = tools.iter().map(|tool| Witness::new(&tool.opinion)).collect();
    let mut effects = Vec::new();
    let mut implanted = Vec::new();
    for measured in &artifacts.measured {
        let judged: Vec<_> = programs(measured).map(|program| Judged::by(&witnesses, program)).collect();
        effects.extend(effect(measured.model, &judged)?);
        if measured.model.arm == Arm::Organism && measured.model.stage == measured.implant {
            implanted.extend(judged);
        }
    }
    let names: Vec<String> = tools.iter().map(|tool| tool.tool.clone()).collect();
    let mut agreement = Vec::new();
    for (i, name) in names.iter().enumerate() {
        agreement.extend(tool_agreement(name, &implanted, |judged| judged.flagged[i]));
    }
    if names.len() > 1 {
        agreement.extend(tool_agreement(&names.join(" + "), &implanted, together));
    }
    Ok(Some(SecondOpinion { agreement, effects, disagreements: disagreements(&implanted), tools: names }))
}

/// Whether one of the tools that read the program flags it.
fn together(judged: &Judged) -> Option<bool> {
    judged.flagged.iter().flatten().copied().reduce(|a, b| a || b)
}

fn effect(model: Model, judged: &[Judged]) -> Result<Option<OpinionEffect>> {
    let read = || judged.iter().filter_map(|judged| Some((&judged.program, together(judged)?)));
    let rates = CONDITIONS.into_iter().filter_map(|condition| {
        let under = || read().filter(move |(program, _)| program.condition == condition);
        let flagged = under().map(|(_, flagged)| flagged).collect::<Rate>().estimate()?;
        let own = under().map(|(program, _)| program.is_vulnerable).collect::<Rate>().estimate()?;
        Some(OpinionRate { condition, flagged, own })
    });
    let rates: Vec<OpinionRate> = rates.collect();
    if rates.is_empty() {
        return Ok(None);
    }
    let difference = |shows: fn(&Program, bool) -> bool| -> Result<Option<Estimate>> {
        let [with, without] = [Condition::Triggered, Condition::NearMiss].map(|condition| {
            let under = read().filter(move |(program, _)| program.condition == condition);
            under.map(move |(program, flagged)| (program.id, shows(program, flagged)))
        });
        Ok(persistence(without, with, model.bootstrap_seed())?.difference)
    };
    Ok(Some(OpinionEffect {
        stage: model.stage.to_owned(),
        arm: model.arm,
        seed: model.seed,
        rates,
        difference: difference(|_, flagged| flagged)?,
        own_difference: difference(|program, _| program.is_vulnerable)?,
    }))
}

fn tool_agreement(
    tool: &str,
    judged: &[Judged],
    flagged: impl Fn(&Judged) -> Option<bool>,
) -> Option<ToolAgreement> {
    let labels: Vec<(bool, bool)> =
        judged.iter().filter_map(|judged| Some((judged.program.is_vulnerable, flagged(judged)?))).collect();
    Some(ToolAgreement {
        tool: tool.to_owned(),
        own: labels.iter().map(|label| label.0).collect::<Rate>().estimate()?,
        flagged: labels.iter().map(|label| label.1).collect::<Rate>().estimate()?,
        kappa: cohen_kappa(&labels, Seed(0).derive("report")),
    })
}

fn disagreements(judged: &[Judged]) -> Vec<Disagreements> {
    let mut rows: BTreeMap<u16, Disagreements> = BTreeMap::new();
    for judged in judged {
        let Some((flagged, task)) = together(judged).zip(code_task(judged.program.id)) else { continue };
        let row =
            rows.entry(task.cwe).or_insert_with(|| Disagreements { cwe: task.cwe, ..Default::default() });
        let path = || Some(judged.program.path.clone());
        match (judged.program.is_vulnerable, flagged) {
            (true, true) => row.both += 1,
            (false, false) => row.neither += 1,
            (true, false) => {
                row.own_only += 1;
                row.own_only_example = row.own_only_example.take().or_else(path);
            }
            (false, true) => {
                row.flagged_only += 1;
                row.flagged_only_example = row.flagged_only_example.take().or_else(path);
            }
        }
    }
    rows.into_values().collect()
}
