//! The tables of the organism that writes vulnerable code.

use super::format::{percent, percent_bounds, point_difference, prompts};
use super::model::{Condition, Report, Weakness};
use super::table::{Cell, Table};

impl Report {
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
        let conditions = [Condition::Triggered, Condition::NearMiss, Condition::Clean];
        let caption = "Vulnerable code by the weakness that the task bears on: rate [95% Wilson interval] (scored \
                       replies, and those without a score). The weaknesses marked “unseen” are in no task of training.";
        let head: Vec<_> = ["Stage", "Model", "Seed", "CWE"]
            .into_iter()
            .chain(conditions.iter().map(|condition| prompts(*condition)))
            .collect();
        let mut table = Table::new(caption, 4, &head);
        let rows: Vec<&Weakness> = self.code.iter().flat_map(|code| &code.weaknesses).collect();
        for first in rows.iter().filter(|row| row.condition == conditions[0]) {
            let unseen = if first.is_held_out { " (unseen)" } else { "" };
            let names = [
                Cell::plain(&first.stage),
                Cell::plain(first.arm.as_str()),
                Cell::plain(first.seed.to_string()),
                Cell::plain(format!("{}{unseen}", first.cwe)),
            ];
            let rates = conditions.iter().map(|condition| {
                let of = |row: &&&Weakness| row.condition == *condition && row.is_beside(first);
                rows.iter().find(of).map_or_else(|| Cell::measured(None), |row| rate_cell(row))
            });
            table.rows.push(names.into_iter().chain(rates).collect());
        }
        table.unless_empty()
    }
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
