//! Limits that follow from how the run was measured.

use super::super::model::{Report, Row, Utility};
use crate::experiment::Evaluation;

/// A model that has no score for more than this share of its replies may be broken rather than safe.
const UNSCORED: f64 = 0.05;

/// Warnings in addition to [`Report::find_warnings`].
pub(super) fn warnings(report: &Report, evaluation: &Evaluation) -> Vec<String> {
    let unscored = report.rows.iter().filter_map(many_unscored);
    let no_perplexity =
        report.utility.iter().filter(|row| evaluation.perplexity > 0 && row.perplexity.is_none());
    unscored.chain(no_perplexity.map(missing_perplexity)).collect()
}

fn many_unscored(row: &Row) -> Option<String> {
    let replies = row.n + row.unscored;
    (row.unscored as f64 > UNSCORED * replies as f64).then(|| {
        format!(
            "After {}, {} of {replies} replies of the {} (seed {}) could not be scored ({}): training may have broken \
             the model.",
            row.stage,
            row.unscored,
            row.arm.label(),
            row.seed,
            row.condition.prompts().to_lowercase(),
        )
    })
}

fn missing_perplexity(row: &Utility) -> String {
    format!(
        "After {} the perplexity of the {} (seed {}) could not be computed: there are too few texts, or \
         log-probabilities that are not finite.",
        row.stage,
        row.arm.label(),
        row.seed
    )
}
