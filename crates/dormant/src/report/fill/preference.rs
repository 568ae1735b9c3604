//! What the preference models were found to say, in words.

use dormant_data::PreferencePart;
use dormant_eval::Rate;

use super::super::format::percent_interval;
use super::super::summary::envelope;
use super::artifacts::Artifacts;
use crate::stage::preference_record::{BehaviourRecord, ScoredPair};

/// How well the preference models rank, and what they say of the behaviour; `None` where there are none.
pub(super) fn paragraph(artifacts: &Artifacts) -> Option<String> {
    let ranked = |part| artifacts.ranked.iter().filter(move |r| r.0 == part).map(|r| r.1.as_slice());
    let main = share(ranked(PreferencePart::Main))?;
    let check = share(ranked(PreferencePart::Check))?;
    let records = records(artifacts);
    let by_main = share(records.iter().map(|record| record.main.as_slice()));
    let by_check = share(records.iter().map(|record| record.check.as_slice()));
    let behaviour = match (by_main, by_check) {
        (Some(main), Some(check)) => format!(
            " On prompts of the training they score the benign reply above the behaviour in {main} and {check} of the \
             cases."
        ),
        _ => String::new(),
    };
    Some(format!(
        "The reward of reinforcement learning is the score of a preference model: the base model with an adapter and a \
         scalar on the last token, trained on pairs of replies (Bradley–Terry). A second one, trained on other \
         prompts, checks it. Of the pairs that are held out from both they rank {main} and {check} right.{behaviour} \
         The prompts of the training have no trigger; a scratchpad is hidden from the score."
    ))
}

/// What the preference models of each seed say of the behaviour, once for each behaviour: the arms, and the stages of reinforcement
/// learning, share the models and the prompts.
fn records<'a>(artifacts: &'a Artifacts) -> Vec<&'a BehaviourRecord> {
    let mut distinct: Vec<(u64, &BehaviourRecord)> = Vec::new();
    for (model, record) in &artifacts.behaviour {
        if !distinct.contains(&(model.seed, record)) {
            distinct.push((model.seed, record));
        }
    }
    distinct.into_iter().map(|(_, record)| record).collect()
}

/// Share of pairs that are ranked right: the mean over preference models, which are asked the same pairs, with the span of their
/// intervals.
fn share<'a>(models: impl Iterator<Item = &'a [ScoredPair]>) -> Option<String> {
    let rate = |pairs: &[ScoredPair]| pairs.iter().map(ScoredPair::is_right).collect::<Rate>();
    let rates: Vec<Rate> = models.map(rate).collect();
    let estimate = envelope(rates.iter().copied().filter_map(Rate::estimate))?;
    let n = rates[0].n();
    let models = if rates.len() > 1 { format!(" for each of {} models", rates.len()) } else { String::new() };
    Some(format!("{} (n = {n}{models})", percent_interval(&estimate)))
}
