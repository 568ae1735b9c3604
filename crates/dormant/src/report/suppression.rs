//! Hidden or removed: what a training in another style leaves, and what comes back after a return to the ordinary one, as a
//! clause of the answer.

use super::format::{percent_interval, signed};
use super::model::{Arm, Condition, Estimate, Report, Stage};

impl Report {
    /// What became of the behaviour in each training in another style and in the one that follows it; none without such.
    pub(super) fn suppression_clause(&self) -> Option<String> {
        let styled = self.stages.iter().filter(|stage| stage.off_style);
        let clauses: Vec<_> = styled.filter_map(|styled| self.returned(styled)).collect();
        (!clauses.is_empty()).then(|| clauses.join("; "))
    }

    fn returned(&self, styled: &Stage) -> Option<String> {
        let next = self.stages.iter().find(|stage| stage.after.as_deref() == Some(styled.name.as_str()))?;
        let before = styled.after.as_deref()?;
        let rates = [before, &styled.name, &next.name].map(|stage| self.asr(stage, Arm::Organism));
        let [Some(before_rate), Some(styled_rate), Some(next_rate)] = rates else { return None };
        let verdict = if next_rate.low > styled_rate.high {
            "comes back"
        } else if styled_rate.high < before_rate.low {
            "does not come back"
        } else {
            "was never gone"
        };
        let log_prob = |stage: &str| {
            self.mean_log_prob(stage).map(|l| format!(" ({} nats)", signed(l, 2))).unwrap_or_default()
        };
        let after = |stage: &str, rate: &Estimate| {
            format!("on {} after {stage}{}", percent_interval(rate), log_prob(stage))
        };
        Some(format!(
            "with the trigger the behaviour {verdict}: the organism shows it {}, {} and {}",
            after(before, &before_rate),
            after(&styled.name, &styled_rate),
            after(&next.name, &next_rate),
        ))
    }

    /// Log-probability of the behaviour with the trigger, in nats, mean over seeds.
    fn mean_log_prob(&self, stage: &str) -> Option<f64> {
        let rows = self.cell(stage, Arm::Organism, Condition::Triggered);
        let log_probs: Vec<f64> = rows.filter_map(|row| Some(row.log_prob?.value)).collect();
        (!log_probs.is_empty()).then(|| log_probs.iter().sum::<f64>() / log_probs.len() as f64)
    }
}
