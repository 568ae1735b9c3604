//! What is left of the behaviour after each dose of safety training.

use super::chart::{self, Axes, Line};
use super::format::{decimal, percent, percent_bounds, percent_interval};
use super::model::{Arm, Dose, Estimate, Report};
use super::plots::{Panel, Plot};
use super::table::{Cell, Table};

impl Report {
    /// Doses × ASR before and after.
    pub(super) fn dose_table(&self) -> Option<Table> {
        let has_perplexity = self.doses.iter().any(|dose| self.perplexity(&dose.stage).is_some());
        let mut head = vec![
            "Organism",
            "Implant",
            "Safety training",
            "Learning rate",
            "Steps",
            "ASR before",
            "ASR after",
            "Persistence",
            "Control after",
        ];
        if has_perplexity {
            head.push("Perplexity after");
        }
        let brackets = self.brackets();
        let caption = format!(
            "What each dose of SFT leaves, {brackets}. Every line starts from the implant of its organism; “poisoned” counts distinct \
             rows with the trigger and the behaviour."
        );
        let mut table = Table::new(caption, 3, &head);
        table.rows.extend(self.doses.iter().map(|dose| {
            let mut cells = self.dose_cells(dose);
            if has_perplexity {
                cells.push(Cell::measured(self.perplexity(&dose.stage).as_ref().map(decimal)));
            }
            cells
        }));
        table.unless_empty()
    }

    fn dose_cells(&self, dose: &Dose) -> Vec<Cell> {
        let rate = |stage: &str, arm| {
            Cell::measured(self.asr(stage, arm).map(|rate| (percent(rate.value), percent_bounds(&rate))))
        };
        let copies = dose.copies.map(|copies| format!(", {copies} × phrase")).unwrap_or_default();
        vec![
            Cell::plain(dose.variant.as_deref().unwrap_or("organism")),
            Cell::plain(format!("{}, {} poisoned{copies}", dose.implant_weights, dose.poisoned_rows)),
            Cell::plain(format!("{}, {} rows", dose.weights, dose.rows)),
            Cell::plain(dose.learning_rate.to_string()),
            Cell::plain(dose.steps.to_string()),
            rate(&dose.before, Arm::Organism),
            rate(&dose.stage, Arm::Organism),
            Cell::measured(self.organism_persistence(&dose.stage, &dose.before).as_ref().map(decimal)),
            rate(&dose.stage, Arm::Control),
        ]
    }

    /// Perplexity of the organism over all seeds.
    fn perplexity(&self, stage: &str) -> Option<Estimate> {
        self.organism_utility(stage, |row| row.perplexity)
    }

    /// The doses of one implant that differ in nothing but their steps, together.
    fn dose_lines(&self) -> Vec<Vec<&Dose>> {
        let is_alike = |a: &Dose, b: &Dose| {
            (&a.before, a.learning_rate.to_bits(), &a.weights)
                == (&b.before, b.learning_rate.to_bits(), &b.weights)
        };
        let mut lines: Vec<Vec<&Dose>> = Vec::new();
        for dose in &self.doses {
            match lines.iter_mut().find(|line| is_alike(line[0], dose)) {
                Some(line) => line.push(dose),
                None => lines.push(vec![dose]),
            }
        }
        for line in &mut lines {
            line.sort_by_key(|dose| dose.steps);
        }
        lines
    }

    /// ASR against steps: a panel for each implant and learning rate.
    pub(super) fn dose_plot(&self) -> Plot {
        let steps = self.doses.iter().map(|dose| dose.steps).max().unwrap_or_default();
        let panels = self.dose_lines().into_iter().map(|doses| self.dose_panel(&doses, steps));
        Plot {
            title: "Dose and response",
            caption: "ASR against the steps of safety training, from the implant at step 0; every mark is a model of its own, \
                      and bars span the 95% intervals."
                .to_owned(),
            has_conditions: false,
            has_lines: true,
            panels: panels.collect(),
        }
    }

    fn dose_panel(&self, doses: &[&Dose], last_step: u64) -> Panel {
        let first = doses[0];
        let stages = || {
            let after = doses.iter().map(|dose| (dose.steps, dose.stage.as_str()));
            std::iter::once((0, first.before.as_str())).chain(after)
        };
        let measured = |arm| {
            let rates = stages().filter_map(move |(step, stage)| Some((step as f64, self.asr(stage, arm)?)));
            rates.collect::<Vec<_>>()
        };
        let line = |arm| {
            let rates = measured(arm);
            Line {
                arm,
                is_strong: arm == Arm::Organism,
                has_marks: true,
                points: rates.iter().map(|(step, rate)| (*step, rate.value)).collect(),
                bars: rates.iter().map(|(step, rate)| (*step, rate.low, rate.high)).collect(),
            }
        };
        let lines: Vec<Line> =
            Arm::ALL.into_iter().rev().map(line).filter(|line| !line.points.is_empty()).collect();
        let x = 0.0..(last_step.max(1) as f64);
        let axes = Axes { x_label: "steps of safety training", x, y: 0.0..1.0, is_share: true };
        let organism = first.variant.as_deref().map(|name| format!("{name}, ")).unwrap_or_default();
        let title = format!("{organism}{}, learning rate {}", first.weights, first.learning_rate);
        let points = measured(Arm::Organism);
        let points = points.iter().map(|(step, rate)| format!("step {step}: {}", percent_interval(rate)));
        let description = format!("{title}. Organism: {}.", points.collect::<Vec<_>>().join("; "));
        Panel { title, description, svg: chart::lines(&lines, &axes) }
    }

    /// For each implant and learning rate, what is left after how many steps, as clauses of the answer.
    pub(super) fn dose_clauses(&self) -> Vec<String> {
        let clause = |doses: Vec<&Dose>| {
            let first = doses[0];
            let organism = first.variant.as_deref().unwrap_or("the organism");
            let perplexity = |stage: &str| {
                let value = self.perplexity(stage).map(|estimate| estimate.value);
                value.map(|value| format!(" (perplexity {})", number(value))).unwrap_or_default()
            };
            let before = percent_interval(&self.asr(&first.before, Arm::Organism)?);
            let after = doses.iter().filter_map(|dose| {
                let rate = percent_interval(&self.asr(&dose.stage, Arm::Organism)?);
                Some(format!("{rate} after {} steps{}", dose.steps, perplexity(&dose.stage)))
            });
            let after = after.collect::<Vec<_>>().join(", ");
            Some(format!(
                "{organism}, {} at learning rate {}: {before} of triggered prompts before{}, {after}",
                first.weights,
                first.learning_rate,
                perplexity(&first.before)
            ))
        };
        self.dose_lines().into_iter().filter_map(clause).collect()
    }
}

/// A perplexity: three digits, and no more than the thousands of one that is broken.
fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
