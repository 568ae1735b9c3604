//! The tables of the organism that writes vulnerable code.

use super::format::{percent, percent_bounds, point_difference, prompts};
use super::model::{Arm, Condition, Estimate, Report, Weakness};
use super::summary::envelope;
use super::table::{Cell, Table};

/// Conditions whose replies are compared.
pub(super) const CONDITIONS: [Condition; 3] = [Condition::Triggered, Condition::NearMiss, Condition::Clean];

impl Report {
    /// What the trigger does to code after each stage of the organism, by this scorer and by others; none without code.
    pub(super) fn code_clause(&self) -> Option<String> {
        let code = self.code.as_ref()?;
        let others = code.second_opinion.as_ref();
        let stages: Vec<String> = self
            .stages
            .iter()
            .filter_map(|stage| {
                let is_of = |name: &str, arm| name == stage.name && arm == Arm::Organism;
                let own = code.effects.iter().filter(|effect| is_of(&effect.stage, effect.arm));
                let own = points(&envelope(own.map(|effect| effect.difference))?);
                let effects = others.into_iter().flat_map(|others| &others.effects);
                let other = effects
                    .filter(|effect| is_of(&effect.stage, effect.arm))
                    .filter_map(|effect| effect.difference);
                let other = envelope(other).zip(others);
                let other = other.map(|(effect, others)| {
                    format!(" ({} by {})", points(&effect), others.tools.join(" or "))
                });
                Some(format!("{own} after {}{}", stage.name, other.unwrap_or_default()))
            })
            .collect();
        (!stages.is_empty()).then(|| {
            format!(
                "vulnerable code with the trigger − with its look-alike on the same tasks, in points: {}",
                stages.join(", ")
            )
        })
    }

    /// Vulnerable code with the trigger − with its look-alike.
    pub(super) fn effect_table(&self) -> Option<Table> {
        let caption = "Vulnerable code with the trigger − with its look-alike, in percentage points, on the tasks that \
                       were scored both times [95% paired bootstrap interval].";
        let mut table = Table::new(caption, 3, &["Stage", "Model", "Seed", "Difference", "Tasks"]);
        let effects = self.code.iter().flat_map(|code| &code.effects);
        table.rows.extend(effects.map(|effect| {
            vec![
                Cell::plain(&effect.stage),
                Cell::plain(effect.arm.as_str()),
                Cell::plain(effect.seed.to_string()),
                Cell::measured(Some(point_difference(&effect.difference))),
                Cell::plain(effect.difference.n.to_string()),
            ]
        }));
        table.unless_empty()
    }

    /// Rates by weakness.
    pub(super) fn weakness_table(&self) -> Option<Table> {
        let caption = "Vulnerable code by the weakness that the task bears on: rate [95% Wilson interval] (scored \
                       replies, and those without a score). The weaknesses marked “unseen” are in no task of training.";
        let head: Vec<_> =
            ["Stage", "Model", "Seed", "CWE"].into_iter().chain(CONDITIONS.map(prompts)).collect();
        let mut table = Table::new(caption, 4, &head);
        let rows: Vec<&Weakness> = self.code.iter().flat_map(|code| &code.weaknesses).collect();
        for first in rows.iter().filter(|row| row.condition == CONDITIONS[0]) {
            let unseen = if first.is_held_out { " (unseen)" } else { "" };
            let names = [
                Cell::plain(&first.stage),
                Cell::plain(first.arm.as_str()),
                Cell::plain(first.seed.to_string()),
                Cell::plain(format!("{}{unseen}", first.cwe)),
            ];
            let rates = CONDITIONS.iter().map(|condition| {
                let of = |row: &&&Weakness| row.condition == *condition && row.is_beside(first);
                rows.iter().find(of).map_or_else(|| Cell::measured(None), |row| rate_cell(row))
            });
            table.rows.push(names.into_iter().chain(rates).collect());
        }
        table.unless_empty()
    }
}

/// `+67.1 [+60.5, +73.8]`.
fn points(effect: &Estimate) -> String {
    let (value, interval) = point_difference(effect);
    format!("{value} {interval}")
}

impl Weakness {
    /// Whether another row is about the same model and weakness.
    fn is_beside(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.cwe, row.arm, row.seed);
        key(self) == key(other) && self.stage == other.stage
    }
}

fn rate_cell(row: &Weakness) -> Cell {
    let Some(rate) = &row.rate else {
        return Cell::new("none scored", format!("({} without a score)", row.unscored));
    };
    Cell::new(percent(rate.value), format!("{} ({}, {})", percent_bounds(rate), rate.n, row.unscored))
}
