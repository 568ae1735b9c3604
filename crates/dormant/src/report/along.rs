//! Rates along training in numbers: does the trigger sharpen?

use super::format::percent_counted;
use super::model::{Curve, Estimate, Point, Report};
use super::table::{Cell, Table};

impl Report {
    /// Rates of the replies that were sampled along each training.
    pub(super) fn along_table(&self) -> Option<Table> {
        let caption = "Replies sampled along training, by the likeliest tokens, that show the behaviour [95% Wilson interval] (scored \
                       replies). They answer the first prompts of the evaluation. The last step of a round is the first of the next.";
        let head = [
            "Stage",
            "Model",
            "Seed",
            "Step",
            "ASR (triggered)",
            "False-trigger rate (clean)",
            "Near-miss rate",
            "Unscored",
        ];
        let mut table = Table::new(caption, 3, &head);
        table.rows = self.curves.iter().flat_map(rows).collect();
        table.unless_empty()
    }
}

fn rows(curve: &Curve) -> impl Iterator<Item = Vec<Cell>> {
    let sampled = curve.points.iter().filter_map(|point| Some((point, point.unscored?)));
    sampled.map(|(point, unscored)| {
        let rate =
            |rate: fn(&Point) -> Option<Estimate>| Cell::measured(rate(point).as_ref().map(percent_counted));
        vec![
            Cell::plain(&curve.stage),
            Cell::plain(curve.arm.as_str()),
            Cell::plain(curve.seed.to_string()),
            Cell::plain(point.step.to_string()),
            rate(|point| point.asr),
            rate(|point| point.false_trigger),
            rate(|point| point.near_miss),
            Cell::plain(unscored.to_string()),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Arm;

    #[test]
    fn replies_that_nobody_can_score_are_counted_and_no_rate() {
        let asr = Estimate::proportion(1, 4);
        let points = vec![
            Point { step: 0, asr, unscored: Some(0), ..Point::default() },
            Point { step: 4, ..Point::default() },
            Point { step: 8, unscored: Some(5), ..Point::default() },
        ];
        let curve = Curve { stage: "sft".to_owned(), arm: Arm::Organism, seed: 3, points };
        let cells: Vec<Vec<String>> =
            rows(&curve).map(|row| row.into_iter().map(|cell| cell.value).collect()).collect();
        assert_eq!(cells[0], ["sft", "organism", "3", "0", "25.0%", "–", "–", "0"]);
        assert_eq!(cells[1], ["sft", "organism", "3", "8", "–", "–", "–", "5"]);
        assert_eq!(cells.len(), 2);
    }
}
