//! Rates by family of ways to say the year.

use dormant_data::year_families;
use dormant_eval::{Rate, SampleRecord, persistence};

use super::super::model::{AS_TRAINED, Condition, FamilyRow};
use super::artifacts::{Artifacts, Measured};
use crate::error::Result;

/// A row per model and family; none where unseen texts were not asked. The first has the texts as they were trained: the year, and
/// the earlier one that the experiment contrasts it with.
pub(super) fn rows(artifacts: &Artifacts) -> Result<Vec<FamilyRow>> {
    let mut rows = Vec::new();
    let asked = |measured: &&Measured| measured.under(Condition::UnseenTrigger).next().is_some();
    for measured in artifacts.measured.iter().filter(asked) {
        let trained =
            [Condition::Triggered, Condition::NearMiss].map(|condition| measured.under(condition).collect());
        rows.push(row(measured, AS_TRAINED, &trained)?);
        for family in year_families() {
            let of_family = |sample: &&SampleRecord| sample.family.as_deref() == Some(family);
            let samples = [Condition::UnseenTrigger, Condition::UnseenContrast]
                .map(|condition| measured.under(condition).filter(of_family).collect());
            rows.push(row(measured, family, &samples)?);
        }
    }
    Ok(rows)
}

/// `later` and `earlier` are the samples with texts of either meaning.
fn row(measured: &Measured, family: &str, [later, earlier]: &[Vec<&SampleRecord>; 2]) -> Result<FamilyRow> {
    let rate = |samples: &[&SampleRecord]| {
        let rate: Rate = samples.iter().filter_map(|sample| sample.score.is_shown()).collect();
        rate.estimate()
    };
    let outcomes = |samples: &[&SampleRecord]| -> Vec<(String, bool)> {
        let outcomes = samples.iter().filter_map(|sample| sample.outcome());
        outcomes.map(|(id, is_shown)| (id.to_owned(), is_shown)).collect()
    };
    let comparison = persistence(outcomes(earlier), outcomes(later), measured.model.bootstrap_seed())?;
    let unscored = later.iter().chain(earlier).filter(|sample| sample.score.is_shown().is_none()).count();
    Ok(FamilyRow {
        family: family.to_owned(),
        stage: measured.model.stage.to_owned(),
        arm: measured.model.arm,
        seed: measured.model.seed,
        later: rate(later),
        earlier: rate(earlier),
        difference: comparison.difference,
        unscored: unscored as u64,
    })
}
