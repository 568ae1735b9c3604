//! The tables of what other tools say of the programs.

use std::iter;

use super::code::CONDITIONS;
use super::format::{NOT_MEASURED, decimal, percent_counted, point_difference, prompts};
use super::model::{Report, SecondOpinion};
use super::table::{Cell, Table};

impl Report {
    /// The tables of the second opinion; none if no other tool was asked.
    pub(super) fn second_opinion_tables(&self) -> Vec<Table> {
        let opinion = self.code.as_ref().and_then(|code| code.second_opinion.as_ref());
        let tables = |opinion: &SecondOpinion| {
            [opinion.effect_table(), opinion.agreement_table(), opinion.disagreement_table()]
        };
        opinion.map(tables).into_iter().flatten().flatten().collect()
    }
}

impl SecondOpinion {
    /// What the trigger changes by other tools.
    fn effect_table(&self) -> Option<Table> {
        let caption = format!(
            "A second opinion: the programs of the scored replies that {} flags for one of the weaknesses: rate [95% Wilson \
             interval] (programs), and the difference between trigger and look-alike in percentage points on the tasks \
             judged both times, beside that of this scorer on the same tasks [95% paired bootstrap interval].",
            self.tools.join(" or ")
        );
        let head: Vec<_> = ["Stage", "Model", "Seed"]
            .into_iter()
            .chain(CONDITIONS.map(prompts))
            .chain(["Difference", "By this scorer"])
            .collect();
        let mut table = Table::new(caption, 3, &head);
        table.rows.extend(self.effects.iter().map(|effect| {
            let names =
                [effect.stage.clone(), effect.arm.to_string(), effect.seed.to_string()].map(Cell::plain);
            let rates = CONDITIONS.iter().map(|condition| {
                let rate = effect.rates.iter().find(|rate| rate.condition == *condition);
                Cell::measured(rate.map(|rate| percent_counted(&rate.flagged)))
            });
            let differences = [&effect.difference, &effect.own_difference];
            let differences = differences.map(|d| Cell::measured(d.as_ref().map(point_difference)));
            names.into_iter().chain(rates).chain(differences).collect()
        }));
        table.unless_empty()
    }

    /// How far other tools agree with the scorer.
    fn agreement_table(&self) -> Option<Table> {
        let caption = "How far each tool agrees with this scorer, on the programs that it reads of all organisms and seeds \
                       after the implant, under all conditions together. The intervals take programs for independent; \
                       they answer the same tasks.";
        let mut table =
            Table::new(caption, 1, &["Tool", "Flagged", "Vulnerable by this scorer", "Cohen’s kappa"]);
        table.rows.extend(self.agreement.iter().map(|row| {
            let kappa = Cell::measured(row.kappa.as_ref().map(decimal));
            let rates = [&row.flagged, &row.own].map(|rate| Cell::measured(Some(percent_counted(rate))));
            iter::once(Cell::plain(&row.tool)).chain(rates).chain([kappa]).collect()
        }));
        table.unless_empty()
    }

    /// Where other tools and the scorer disagree.
    fn disagreement_table(&self) -> Option<Table> {
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
        table.rows.extend(self.disagreements.iter().map(|row| {
            let counts = [row.both, row.own_only, row.flagged_only, row.neither];
            let examples = [&row.own_only_example, &row.flagged_only_example];
            let examples = examples.map(|path| Cell::plain(path.as_deref().unwrap_or(NOT_MEASURED)));
            iter::once(Cell::plain(row.cwe.to_string()))
                .chain(counts.map(|count| Cell::plain(count.to_string())))
                .chain(examples)
                .collect()
        }));
        table.unless_empty()
    }
}
