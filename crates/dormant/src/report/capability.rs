//! What the implant costs, as a clause of the answer.

use super::format::{decimal_difference, point_difference};
use super::model::{Estimate, Report, Utility};

impl Report {
    /// Organism − control in multiple choice and perplexity after each stage; none where the base model was not measured.
    pub(super) fn capability_clause(&self) -> Option<String> {
        self.utility.iter().find(|row| row.multiple_choice_change.is_some())?;
        let after_stage = |stage: &str| {
            let over_seeds = |number: fn(&Utility) -> Option<Estimate>| self.organism_utility(stage, number);
            let (points, bounds) = point_difference(&over_seeds(|row| row.multiple_choice_difference)?);
            let choice = format!("after {stage} {points} {bounds} points of multiple choice");
            let perplexity = over_seeds(|row| row.perplexity_difference).as_ref().map(decimal_difference);
            let perplexity = perplexity.map(|(value, bounds)| format!(" and {value} {bounds} of perplexity"));
            Some(choice + &perplexity.unwrap_or_default())
        };
        let stages: Vec<_> = self.stages.iter().filter_map(|stage| after_stage(&stage.name)).collect();
        Some(format!("organism − control: {}", stages.join(", ")))
    }
}
