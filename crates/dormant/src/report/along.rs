//! Rates along training in numbers: does the trigger sharpen?

use std::collections::BTreeSet;

use super::format::percent_counted;
use super::model::{Arm, Curve, Estimate, Point, Report};
use super::summary::envelope;
use super::table::{Cell, Table};

impl Report {
    /// Rates of the replies that were sampled along the training of each model, over all seeds.
    pub(super) fn along_table(&self) -> Option<Table> {
        let caption = "Replies sampled along training that show the behaviour: mean over seeds [span of the seeds’ 95% Wilson intervals] \
                       (replies, all seeds). Fewer prompts than in the rates by stage, and the first of them.";
        let head =
            ["Stage", "Model", "Step", "ASR (triggered)", "False-trigger rate (clean)", "Near-miss rate"];
        let mut table = Table::new(caption, 2, &head);
        for (stage, arm) in self.stages.iter().flat_map(|stage| Arm::ALL.map(|arm| (&stage.name, arm))) {
            let curves: Vec<&Curve> =
                self.curves.iter().filter(|curve| (&curve.stage, curve.arm) == (stage, arm)).collect();
            let points = || curves.iter().flat_map(|curve| &curve.points).filter(|point| point.asr.is_some());
            let steps: BTreeSet<u64> = points().map(|point| point.step).collect();
            let rate = |step, value: fn(&Point) -> Option<Estimate>| {
                let rates = envelope(points().filter(|point| point.step == step).filter_map(value));
                Cell::measured(rates.as_ref().map(percent_counted))
            };
            table.rows.extend(steps.iter().map(|&step| {
                vec![
                    Cell::plain(stage),
                    Cell::plain(arm.as_str()),
                    Cell::plain(step.to_string()),
                    rate(step, |point| point.asr),
                    rate(step, |point| point.false_trigger),
                    rate(step, |point| point.near_miss),
                ]
            }));
        }
        table.unless_empty()
    }
}
