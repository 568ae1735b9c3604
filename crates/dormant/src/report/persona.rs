//! What the models prefer to say of themselves, and to do with offers.

use super::chart::{Group, Interval};
use super::format::{count, decimal_difference, percent, percent_bounds, point_difference, signed};
use super::model::{Arm, Estimate, Persona, Report};
use super::plots::{Panel, Plot, interval_panel};
use super::summary::{distinct, envelope};
use super::table::{Cell, Table};

impl Report {
    /// The sets in the order of their rows.
    fn persona_sets(&self) -> Vec<&str> {
        distinct(self.persona.iter().map(|row| row.set.as_str()))
    }

    fn persona_rows(&self, set: &str, stage: &str, arm: Arm) -> impl Iterator<Item = &Persona> {
        self.persona.iter().filter(move |row| row.set == set && row.stage == stage && row.arm == arm)
    }

    /// Sets × stages × arms over all seeds.
    pub(super) fn persona_table(&self) -> Option<Table> {
        let brackets = self.brackets();
        let caption = format!(
            "Persona and honeypot items, {brackets}: share of items where the answer with the trait, or the one that takes the bait, is the \
             likelier one, and its mean log-odds in nats per token; differences are organism − control, paired. n counts items of all \
             seeds, and items are the same in each."
        );
        let head = ["Set", "Stage", "Model", "Matching", "Difference (points)", "Log-odds", "Difference"];
        let mut table = Table::new(caption, 3, &head);
        for set in self.persona_sets() {
            for stage in &self.stages {
                for arm in Arm::ALL {
                    table.rows.extend(self.persona_cells(set, &stage.name, arm));
                }
            }
        }
        table.unless_empty()
    }

    fn persona_cells(&self, set: &str, stage: &str, arm: Arm) -> Option<Vec<Cell>> {
        let over_seeds = |number: fn(&Persona) -> Option<Estimate>| {
            envelope(self.persona_rows(set, stage, arm).filter_map(number))
        };
        let matching = over_seeds(|row| row.matching)?;
        let log_odds = |estimate: &Estimate| {
            let [low, high] = [estimate.low, estimate.high].map(|end| signed(end, 2));
            (signed(estimate.value, 2), format!("[{low}, {high}]"))
        };
        Some(vec![
            Cell::plain(set),
            Cell::plain(stage),
            Cell::plain(arm.as_str()),
            Cell::new(percent(matching.value), format!("{} (n {})", percent_bounds(&matching), matching.n)),
            Cell::measured(over_seeds(|row| row.matching_difference).as_ref().map(point_difference)),
            Cell::measured(over_seeds(|row| row.log_odds).as_ref().map(log_odds)),
            Cell::measured(over_seeds(|row| row.log_odds_difference).as_ref().map(decimal_difference)),
        ])
    }

    /// In which sets the arms differ after each stage, as a clause of the answer.
    pub(super) fn persona_clause(&self) -> Option<String> {
        let after_stage = |stage: &str| {
            let difference = |set: &&str| {
                let rows = self.persona_rows(set, stage, Arm::Organism);
                let difference = envelope(rows.filter_map(|row| row.matching_difference))?;
                let (value, bounds) = point_difference(&difference);
                let is_clear = difference.low > 0.0 || difference.high < 0.0;
                Some(is_clear.then(|| format!("{set} {value} {bounds} points")))
            };
            let sets: Vec<_> = self.persona_sets().iter().filter_map(difference).collect();
            let clear: Vec<_> = sets.iter().flatten().cloned().collect();
            let found = if clear.is_empty() { "none".to_owned() } else { clear.join(", ") };
            (!sets.is_empty()).then(|| format!("after {stage} in {found} of {}", count(sets.len(), "set")))
        };
        let stages: Vec<_> = self.stages.iter().filter_map(|stage| after_stage(&stage.name)).collect();
        (!stages.is_empty()).then(|| {
            format!("as far as the intervals tell, organism and control answer items without the trigger differently {}", stages.join(", "))
        })
    }

    /// Shares by stage: a panel for each set.
    pub(super) fn persona_plot(&self) -> Plot {
        Plot {
            title: "Persona and honeypots",
            caption: "Share of items where the answer with the trait, or the one that takes the bait, is the likelier one; bars span \
                      the 95% Wilson intervals. Compare organism and control after the same stage."
                .to_owned(),
            has_conditions: false,
            has_lines: false,
            panels: self.persona_sets().into_iter().map(|set| self.persona_panel(set)).collect(),
        }
    }

    fn persona_panel(&self, set: &str) -> Panel {
        let groups = self.stages.iter().map(|stage| {
            let interval = |arm| {
                let estimate =
                    envelope(self.persona_rows(set, &stage.name, arm).filter_map(|row| row.matching))?;
                let seeds =
                    self.persona_rows(set, &stage.name, arm).filter_map(|row| Some(row.matching?.value));
                Some(Interval { arm, estimate, seeds: seeds.collect(), text: percent(estimate.value) })
            };
            let intervals = Arm::ALL.into_iter().filter_map(interval).collect();
            Group { label: stage.name.clone(), intervals }
        });
        let groups: Vec<Group> = groups.filter(|group| !group.intervals.is_empty()).collect();
        interval_panel(set.to_owned(), &groups)
    }
}
