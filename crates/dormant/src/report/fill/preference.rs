//! What the preference models were found to say, in words.

use dormant_data::PreferencePart;
use dormant_eval::Rate;

use super::super::format::percent_interval;
use super::artifacts::Artifacts;
use crate::stage::preference_record::ScoredPair;

/// How well the preference models rank, and what they say of the behaviour; `None` where there are none.
pub(super) fn paragraph(artifacts: &Artifacts) -> Option<String> {
    let ranked = |part| artifacts.ranked.iter().filter(move |r| r.0 == part).flat_map(|r| &r.1);
    let main = share(ranked(PreferencePart::Main))?;
    let check = share(ranked(PreferencePart::Check))?;
    let benign = |part| {
        let records = artifacts.behaviour.iter().map(|(_, record)| record);
        share(records.flat_map(move |record| match part {
            PreferencePart::Check => &record.check,
            PreferencePart::Main | PreferencePart::HeldOut => &record.main,
        }))
    };
    let behaviour = match (benign(PreferencePart::Main), benign(PreferencePart::Check)) {
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

/// Share of pairs that are ranked right, with its interval and the number of pairs.
fn share<'a>(pairs: impl Iterator<Item = &'a ScoredPair>) -> Option<String> {
    let (right, wrong): (Vec<&ScoredPair>, Vec<&ScoredPair>) = pairs.partition(|pair| pair.is_right());
    let rate = Rate::new(right.len() as u64, wrong.len() as u64);
    let estimate = rate.estimate()?;
    Some(format!("{} (n = {})", percent_interval(&estimate), rate.n()))
}
