//! Rates over the seeds of an experiment.

use std::collections::BTreeSet;

use super::model::{Arm, Condition, Estimate, Report, Row, Stage, StageKind, Utility};

/// One rate over all seeds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pooled {
    /// Mean of the seeds' rates. The interval reaches from the lowest to the highest end of the seeds' 95%
    /// intervals: it is the Wilson interval when there is one seed, and otherwise wide enough for each of them.
    /// Pooling the counts instead would take the seeds for one model and be too sure.
    pub(super) estimate: Estimate,
    /// Replies that show the behaviour, in all seeds.
    pub(super) hits: u64,
    /// The seeds' own rates.
    pub(super) seeds: Vec<f64>,
}

impl Pooled {
    fn over<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<Self> {
        let rows: Vec<_> = rows.filter(|row| row.n > 0).collect();
        let estimate = envelope(rows.iter().map(|row| row.estimate()))?;
        let seeds = rows.iter().map(|row| row.rate).collect();
        Some(Self { estimate, hits: rows.iter().map(|row| row.hits()).sum(), seeds })
    }
}

/// Mean of the values, with the envelope of their intervals and the sum of their counts.
pub(super) fn envelope(estimates: impl Iterator<Item = Estimate>) -> Option<Estimate> {
    let estimates: Vec<_> = estimates.collect();
    if estimates.is_empty() {
        return None;
    }
    Some(Estimate {
        value: estimates.iter().map(|estimate| estimate.value).sum::<f64>() / estimates.len() as f64,
        low: estimates.iter().map(|estimate| estimate.low).fold(f64::INFINITY, f64::min),
        high: estimates.iter().map(|estimate| estimate.high).fold(f64::NEG_INFINITY, f64::max),
        n: estimates.iter().map(|estimate| estimate.n).sum(),
    })
}

/// The different names, in the order in which they first come.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

impl Stage {
    /// The organism, as the beginning of a sentence.
    pub(super) fn organism(&self) -> String {
        match &self.variant {
            Some(name) => format!("The organism {name}"),
            None => "The organism".to_owned(),
        }
    }
}

impl Report {
    /// The seeds of the experiment.
    pub(super) fn seeds(&self) -> BTreeSet<u64> {
        self.rows.iter().map(|row| row.seed).collect()
    }

    /// What the brackets of a table over seeds mean.
    pub(super) fn brackets(&self) -> &'static str {
        match self.seeds().len() {
            0 | 1 => "[95% intervals]",
            _ => "mean over seeds [span of the seeds’ 95% intervals]",
        }
    }

    /// Rows of one cell of the table.
    pub(super) fn cell(&self, stage: &str, arm: Arm, condition: Condition) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.stage == stage && row.arm == arm && row.condition == condition)
    }

    /// A rate over all seeds; `None` when nothing was scored.
    pub(super) fn pooled(&self, stage: &str, arm: Arm, condition: Condition) -> Option<Pooled> {
        Pooled::over(self.cell(stage, arm, condition))
    }

    /// A rate of one seed; `None` when nothing was scored.
    pub(super) fn single(&self, stage: &str, arm: Arm, condition: Condition, seed: u64) -> Option<Estimate> {
        self.cell(stage, arm, condition).find(|row| row.seed == seed && row.n > 0).map(Row::estimate)
    }

    /// A number of the organism's utility after a stage, over all seeds.
    pub(super) fn organism_utility(
        &self,
        stage: &str,
        number: fn(&Utility) -> Option<Estimate>,
    ) -> Option<Estimate> {
        let rows = self.utility.iter().filter(|row| row.stage == stage && row.arm == Arm::Organism);
        envelope(rows.filter_map(number))
    }

    /// The persistence of the organism over all seeds.
    pub(super) fn organism_persistence(&self, stage: &str, before: &str) -> Option<Estimate> {
        let rows = self.persistence.iter();
        let rows = rows.filter(|row| row.arm == Arm::Organism && row.stage == stage && row.before == before);
        envelope(rows.map(|row| row.ratio))
    }

    /// The ASR after a stage.
    pub(super) fn asr(&self, stage: &str, arm: Arm) -> Option<Estimate> {
        self.pooled(stage, arm, Condition::Triggered).map(|pooled| pooled.estimate)
    }

    /// Whether any row has this condition.
    pub(super) fn has(&self, condition: Condition) -> bool {
        self.rows.iter().any(|row| row.condition == condition)
    }

    /// The implants: one for each organism.
    pub(super) fn implants(&self) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(|stage| stage.kind == StageKind::Implant)
    }

    /// The last implant.
    pub(super) fn implant(&self) -> Option<&Stage> {
        self.implants().last()
    }

    /// Safety stages that no other stage continues: the ends of the chains.
    pub(super) fn last_safety_stages(&self) -> impl Iterator<Item = &Stage> {
        let continued = |name: &str| self.stages.iter().any(|stage| stage.after.as_deref() == Some(name));
        self.stages.iter().filter(move |stage| stage.kind == StageKind::Safety && !continued(&stage.name))
    }

    /// The safety stages up to and including this one, in the order in which they ran, and the implant before them.
    pub(super) fn chain<'a>(&'a self, last: &'a Stage) -> (Vec<&'a Stage>, Option<&'a Stage>) {
        let parent = |stage: &&'a Stage| {
            let name = stage.after.as_deref()?;
            self.stages.iter().find(|stage| stage.name == name)
        };
        // A stage list cannot be longer than itself: a file with a cycle must not hang the reader.
        let mut line = std::iter::successors(Some(last), parent).take(self.stages.len());
        let mut safety: Vec<_> = line.clone().take_while(|stage| stage.kind == StageKind::Safety).collect();
        safety.reverse();
        (safety, line.find(|stage| stage.kind != StageKind::Safety))
    }
}
