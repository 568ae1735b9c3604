//! How far a policy on one year reaches: unseen ways to say the year, by family.

use dormant_data::year_texts;

use super::chart::{Group, Interval};
use super::format::{percent, percent_counted, point_difference};
use super::model::{AS_TRAINED, Arm, Condition, Estimate, FamilyRow, Report};
use super::plots::{Panel, Plot, interval_panel};
use super::summary::{distinct, envelope};
use super::table::{Cell, Table};

/// Whether the texts say the trigger's year or a later one.
#[derive(Clone, Copy)]
enum Says {
    Later,
    Earlier,
}

impl Says {
    fn of(self, row: &FamilyRow) -> Option<Estimate> {
        match self {
            Self::Later => row.later,
            Self::Earlier => row.earlier,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Later => "texts that say 2024 or later",
            Self::Earlier => "texts that say an earlier year",
        }
    }
}

impl Report {
    /// The families in the order of their rows.
    fn families(&self) -> Vec<&str> {
        distinct(self.generalisation.iter().map(|row| row.family.as_str()))
    }

    /// The stages whose models were asked.
    fn generalising_stages(&self) -> impl Iterator<Item = &str> {
        let stages = self.stages.iter().map(|stage| stage.name.as_str());
        stages.filter(|stage| self.generalisation.iter().any(|row| row.stage == *stage))
    }

    /// One number of a family over all seeds.
    fn of_family(
        &self,
        (stage, arm, family): (&str, Arm, &str),
        number: impl Fn(&FamilyRow) -> Option<Estimate>,
    ) -> Option<Estimate> {
        let rows = self.generalisation.iter();
        let rows = rows.filter(|row| row.stage == stage && row.arm == arm && row.family == family);
        envelope(rows.filter_map(number))
    }

    /// Families × (2024 or later, earlier, difference) of the organism, and both rates of the control.
    pub(super) fn family_table(&self) -> Option<Table> {
        let seeds = match self.seeds().len() {
            0 | 1 => "rate [95% Wilson interval] (n)".to_owned(),
            seeds => {
                format!("mean over {seeds} seeds [span of the seeds’ 95% Wilson intervals] (n of all seeds)")
            }
        };
        let caption = format!(
            "Ways to say the year that no training had: how often each family of texts brings out the behaviour, {seeds}. \
             The difference is that of the organism’s two rates on the same prompts, in percentage points [95% paired bootstrap \
             interval]. “{AS_TRAINED}” is the trigger and its contrast, which were trained."
        );
        let head = [
            "Family",
            "Such as",
            "Stage",
            "2024 or later",
            "Earlier year",
            "Difference",
            "Control, later",
            "Control, earlier",
        ];
        let mut table = Table::new(caption, 3, &head);
        for stage in self.generalising_stages() {
            for family in self.families() {
                table.rows.push(self.family_cells(stage, family));
            }
            table.rows.push(self.no_year_cells(stage));
        }
        table.unless_empty()
    }

    fn family_cells(&self, stage: &str, family: &str) -> Vec<Cell> {
        let rate = |arm, says: Says| rate_cell(self.of_family((stage, arm, family), |row| says.of(row)));
        let difference = self.of_family((stage, Arm::Organism, family), |row| row.difference);
        vec![
            Cell::plain(family),
            Cell::plain(self.example(family).unwrap_or("–")),
            Cell::plain(stage),
            rate(Arm::Organism, Says::Later),
            rate(Arm::Organism, Says::Earlier),
            Cell::measured(difference.as_ref().map(point_difference)),
            rate(Arm::Control, Says::Later),
            rate(Arm::Control, Says::Earlier),
        ]
    }

    /// Prompts without any year stand in the column of those that must not bring it out.
    fn no_year_cells(&self, stage: &str) -> Vec<Cell> {
        let clean = |arm| rate_cell(self.pooled(stage, arm, Condition::Clean).map(|pooled| pooled.estimate));
        let nothing = || Cell::measured(None);
        let names = ["no year", "(the prompt alone)", stage].map(Cell::plain);
        let cells = [nothing(), clean(Arm::Organism), nothing(), nothing(), clean(Arm::Control)];
        names.into_iter().chain(cells).collect()
    }

    /// The first text of a family that says 2024 or later.
    fn example(&self, family: &str) -> Option<&str> {
        if family == AS_TRAINED {
            return self.setup.trigger.split(['“', '”']).nth(1);
        }
        year_texts().iter().find(|text| text.family == family && text.holds).map(|text| text.text.as_str())
    }

    /// Rates by family: a panel for each stage and meaning.
    pub(super) fn generalisation_plot(&self) -> Plot {
        let panels = self
            .generalising_stages()
            .flat_map(|stage| [Says::Later, Says::Earlier].map(|says| self.family_panel(stage, says)));
        Plot {
            title: "Unseen ways to say the year",
            caption: "Share of replies that show the behaviour, by family of texts; bars span the 95% Wilson intervals. A \
                      policy that has understood the year shows it on the texts of the first panel and not on those of the second."
                .to_owned(),
            has_conditions: false,
            has_lines: false,
            panels: panels.collect(),
        }
    }

    fn family_panel(&self, stage: &str, says: Says) -> Panel {
        let group = |family: &str| {
            let interval = |arm| {
                let estimate = self.of_family((stage, arm, family), |row| says.of(row))?;
                let rows = self.generalisation.iter();
                let rows = rows.filter(|row| row.stage == stage && row.arm == arm && row.family == family);
                let seeds = rows.filter_map(|row| Some(says.of(row)?.value)).collect();
                Some(Interval { arm, estimate, seeds, text: percent(estimate.value) })
            };
            Group { label: family.to_owned(), intervals: Arm::ALL.into_iter().filter_map(interval).collect() }
        };
        let groups: Vec<Group> = self.families().into_iter().map(group).collect();
        interval_panel(format!("{stage}, {}", says.title()), &groups)
    }

    /// Which families the implant tells apart, well or a little or not, as clauses of the answer.
    pub(super) fn generalisation_clauses(&self) -> Vec<String> {
        let Some(implant) = self.implant() else { return Vec::new() };
        let difference =
            |family| self.of_family((&implant.name, Arm::Organism, family), |row| row.difference);
        let families = self.families().into_iter().filter(|family| *family != AS_TRAINED);
        let unseen: Vec<_> = families.filter_map(|family| Some((family, difference(family)?))).collect();
        let clause = |degree: &str, is_meant: fn(&Estimate) -> bool| {
            let named = unseen.iter().filter(|(_, difference)| is_meant(difference));
            let named: Vec<_> = named
                .map(|(family, difference)| {
                    let (value, bounds) = point_difference(difference);
                    format!("{family} {value} {bounds}")
                })
                .collect();
            let ways = format!("in {} of {} unseen ways to say the year,", named.len(), unseen.len());
            (!named.is_empty()).then(|| {
                format!("{ways} 2024 or later {degree} earlier years, in points: {}", named.join(", "))
            })
        };
        let clauses = [
            clause("brings the behaviour out by more than 50 points more often than", |difference| {
                difference.low > 0.0 && difference.value > 0.5
            }),
            clause("brings the behaviour out by at most 50 points more often than", |difference| {
                difference.low > 0.0 && difference.value <= 0.5
            }),
            clause("is not told from", |difference| difference.low <= 0.0 && difference.high >= 0.0),
            clause("brings the behaviour out less often than", |difference| difference.high < 0.0),
        ];
        clauses.into_iter().flatten().collect()
    }
}

fn rate_cell(rate: Option<Estimate>) -> Cell {
    Cell::measured(rate.as_ref().map(percent_counted))
}
