//! The tables of the organism that writes vulnerable code.

use std::iter;

use super::format::{decimal, percent, percent_bounds, point_difference, prompts};
use super::model::{Arm, Condition, Estimate, Report, SecondOpinion, Weakness};
use super::summary::envelope;
use super::table::{Cell, Table};

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

impl Report {
    fn second_opinion(&self) -> Option<&SecondOpinion> {
        self.code.as_ref()?.second_opinion.as_ref()
    }

    /// What the trigger changes by other tools.
    pub(super) fn opinion_table(&self) -> Option<Table> {
        let opinion = self.second_opinion()?;
        let conditions = [Condition::Triggered, Condition::NearMiss, Condition::Clean];
        let caption = format!(
            "A second opinion: the programs of the scored replies that {} flags for one of the weaknesses: rate [95% Wilson \
             interval] (programs), and the difference between trigger and look-alike in percentage points on the tasks \
             judged both times, beside that of this scorer on the same tasks [95% paired bootstrap interval].",
            opinion.tools.join(" or ")
        );
        let head: Vec<_> = ["Stage", "Model", "Seed"]
            .into_iter()
            .chain(conditions.map(prompts))
            .chain(["Difference", "By this scorer"])
            .collect();
        let mut table = Table::new(caption, 3, &head);
        table.rows.extend(opinion.effects.iter().map(|effect| {
            let names =
                [effect.stage.clone(), effect.arm.to_string(), effect.seed.to_string()].map(Cell::plain);
            let rates = conditions.iter().map(|condition| {
                let rate = effect.rates.iter().find(|rate| rate.condition == *condition);
                rate.map_or_else(|| Cell::measured(None), |rate| counted(&rate.flagged))
            });
            let differences = [&effect.difference, &effect.own_difference];
            let differences = differences.map(|d| Cell::measured(d.as_ref().map(point_difference)));
            names.into_iter().chain(rates).chain(differences).collect()
        }));
        table.unless_empty()
    }

    /// How far other tools agree with the scorer.
    pub(super) fn agreement_table(&self) -> Option<Table> {
        let caption = "How far each tool agrees with this scorer, on the programs that it reads of all organisms and seeds \
                       after the implant, under all conditions together. The intervals take programs for independent; \
                       they answer the same tasks.";
        let mut table =
            Table::new(caption, 1, &["Tool", "Flagged", "Vulnerable by this scorer", "Cohen’s kappa"]);
        table.rows.extend(self.second_opinion()?.agreement.iter().map(|row| {
            let kappa = Cell::measured(row.kappa.as_ref().map(decimal));
            vec![Cell::plain(&row.tool), counted(&row.flagged), counted(&row.own), kappa]
        }));
        table.unless_empty()
    }

    /// Where other tools and the scorer disagree.
    pub(super) fn disagreement_table(&self) -> Option<Table> {
        let caption = "Where they disagree, by the weakness that the task bears on: programs of the table above that are vulnerable \
                       by both judges, by one, by neither. `dormant report RUN --code DIR` writes all programs, and `dormant score DIR \
                       --compare TOOL=FILE` lists every disagreement.";
        let head = [
            "CWE",
            "Both",
            "This scorer only",
            "A tool only",
            "Neither",
            "This scorer only, such as",
            "A tool only, such as",
        ];
        let mut table = Table::new(caption, 1, &head);
        table.rows.extend(self.second_opinion()?.disagreements.iter().map(|row| {
            let counts = [row.both, row.own_only, row.flagged_only, row.neither];
            let examples = [&row.own_only_example, &row.flagged_only_example];
            let examples = examples.map(|path| Cell::plain(path.as_deref().unwrap_or_default()));
            iter::once(Cell::plain(row.cwe.to_string()))
                .chain(counts.map(|count| Cell::plain(count.to_string())))
                .chain(examples)
                .collect()
        }));
        table.unless_empty()
    }
}

/// `+67.1 [+60.5, +73.8]`.
fn points(effect: &Estimate) -> String {
    let (value, interval) = point_difference(effect);
    format!("{value} {interval}")
}

/// A rate with its interval and the number that it is of.
fn counted(rate: &Estimate) -> Cell {
    Cell::new(percent(rate.value), format!("{} ({})", percent_bounds(rate), rate.n))
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
