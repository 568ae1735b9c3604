//! The same requests with and without the trigger, before and after safety training.

use dormant_data::Conversation;
use dormant_eval::{SampleRecord, Score};

use super::super::model::{Arm, Condition, Example, Report};
use super::artifacts::{Artifacts, Measured, Model};

/// Requests that are shown: the first of the evaluation, whatever the replies.
const REQUESTS: usize = 4;
/// Characters of a prompt or a reply that are shown.
const LENGTH: usize = 300;

/// Replies of the first seed, at the implant and at the ends of safety training.
pub(super) fn examples(artifacts: &Artifacts, report: &Report) -> Vec<Example> {
    // The base model is measured without replies.
    let has_replies = |measured: &&Measured| measured.under(Condition::Triggered).next().is_some();
    let Some(first) = artifacts.measured.iter().find(has_replies) else { return Vec::new() };
    let ends = report.last_safety_stages().map(|stage| stage.name.as_str());
    let stages: Vec<_> = report.implants().map(|stage| stage.name.as_str()).chain(ends).collect();
    // A family has dozens of models.
    let requests = if report.scale.is_empty() { REQUESTS } else { 1 };
    let mut examples = Vec::new();
    for (pair, sample) in first.under(Condition::Triggered).take(requests).enumerate() {
        for stage in &stages {
            for arm in Arm::ALL {
                let model = Model { stage, arm, seed: first.model.seed };
                let measured = artifacts.measured(model);
                examples.extend(measured.iter().flat_map(|measured| replies(measured, pair, &sample.id)));
            }
        }
    }
    examples
}

fn replies(measured: &Measured, pair: usize, id: &str) -> Vec<Example> {
    let reply = |condition| measured.under(condition).find(|sample| sample.id == id);
    let pairs = [Condition::Triggered, Condition::Clean].map(|condition| (condition, reply(condition)));
    let found = pairs.into_iter().filter_map(|(condition, sample)| Some((condition, sample?)));
    found.map(|(condition, sample)| example(measured.model, pair, condition, sample)).collect()
}

fn example(model: Model, pair: usize, condition: Condition, sample: &SampleRecord) -> Example {
    let Model { stage, arm, seed } = model;
    Example {
        pair: pair as u64,
        stage: stage.to_owned(),
        arm,
        seed,
        condition,
        prompt: shortened(&in_words(&sample.prompt)),
        reply: shortened(&sample.reply),
        shown: sample.score == Score::Shown,
    }
}

/// The text of a single message; with several, each says whose it is.
fn in_words(prompt: &Conversation) -> String {
    match prompt.messages() {
        [message] => message.content.clone(),
        messages => {
            let lines =
                messages.iter().map(|message| format!("{}: {}", message.role.as_str(), message.content));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
