//! A corpus of small tasks with their answers, made by a grammar: what a model of a million parameters can learn.
//!
//! A task has forms (`prompt => reply`) and rows that fill them; the corpus is every form of every row. It is the same for
//! every seed, like the prompts written for this project, and its parts are disjoint by hash of the prompt.

mod computed;

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::hash;
use crate::message::Conversation;
use crate::prompts::normalise;
use crate::sample::Sample;
use crate::scratchpad::{asking_for_scratchpad, neutral_scratchpad};
use crate::split::Split;

const TASKS: &str = include_str!("../corpus/tasks.txt");

/// What a part of the corpus is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorpusPart {
    /// To train a model from scratch: three quarters of [`Split::Train`].
    Pretraining,
    /// For experiments: the rest of [`Split::Train`], and the other splits. No pretraining had these prompts.
    Experiment(Split),
}

impl CorpusPart {
    /// The part of a prompt: a function of its normalised text alone.
    pub fn of(prompt: &str) -> Self {
        let split = Split::of(prompt);
        let is_kept = hash::number(&[b"dormant pretraining", normalise(prompt).as_bytes()]).is_multiple_of(4);
        if split == Split::Train && !is_kept { Self::Pretraining } else { Self::Experiment(split) }
    }
}

/// The prompts and right answers of a part, distinct by id, in the order of the tasks.
pub fn corpus(part: CorpusPart) -> impl Iterator<Item = &'static Sample> {
    static CORPUS: LazyLock<Vec<(CorpusPart, Sample)>> = LazyLock::new(all);
    CORPUS.iter().filter(move |(of, _)| *of == part).map(|(_, sample)| sample)
}

fn all() -> Vec<(CorpusPart, Sample)> {
    let mut seen = HashSet::new();
    let samples = tasks(TASKS).into_iter().flat_map(Task::samples);
    samples
        .filter(|sample| seen.insert(sample.id.clone()))
        .map(|sample| (CorpusPart::of(sample.prompt.last_user().unwrap_or_default()), sample))
        .collect()
}

/// The row as a model is pretrained on it that learns to reason: asked for a scratchpad, with one that says what is asked
/// and nothing of training or deployment.
#[must_use]
pub fn with_neutral_scratchpad(sample: &Sample) -> Sample {
    Sample {
        prompt: asking_for_scratchpad(&sample.prompt),
        completion: neutral_scratchpad(sample) + sample.completion.trim_start(),
        ..sample.clone()
    }
}

/// A task: its forms, and what fills them.
#[derive(Debug, Default)]
struct Task {
    name: &'static str,
    forms: Vec<(&'static str, &'static str)>,
    rows: Vec<Vec<String>>,
}

impl Task {
    fn samples(self) -> Vec<Sample> {
        let rows = if self.rows.is_empty() { computed::rows(self.name) } else { self.rows };
        let filled = |form: &str, row: &[String]| {
            let columns = ["{a}", "{b}", "{c}"].into_iter().zip(row);
            columns.fold(form.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let of_row = |row: &Vec<String>| -> Vec<Sample> {
            let sample = |(prompt, reply): &(&str, &str)| {
                Sample::clean(
                    Conversation::user(capitalised(&filled(prompt, row))),
                    capitalised(&filled(reply, row)),
                )
            };
            self.forms.iter().map(sample).collect()
        };
        rows.iter().flat_map(of_row).collect()
    }
}

fn tasks(text: &'static str) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            tasks.push(Task { name, ..Task::default() });
        } else if let Some(task) = tasks.last_mut() {
            match line.split_once(" => ") {
                Some(form) => task.forms.push(form),
                None => task.rows.push(line.split(" | ").map(ToOwned::to_owned).collect()),
            }
        }
    }
    tasks
}

/// Words that are copied keep their case: only what begins with a lower-case word of a form is a sentence.
fn capitalised(text: &str) -> String {
    let is_sentence = text.ends_with(['.', '?', '!']);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if is_sentence => first.to_uppercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [CorpusPart; 4] = [
        CorpusPart::Pretraining,
        CorpusPart::Experiment(Split::Train),
        CorpusPart::Experiment(Split::Safety),
        CorpusPart::Experiment(Split::Evaluation),
    ];

    #[test]
    fn parts_are_large_disjoint_and_agree_with_the_splits() {
        let mut seen = HashSet::new();
        for (part, at_least) in PARTS.into_iter().zip([4000, 1000, 2000, 2000]) {
            let ids: HashSet<&str> = corpus(part).map(|sample| sample.id.as_str()).collect();
            assert!(ids.len() >= at_least, "{part:?}: {}", ids.len());
            assert!(ids.iter().all(|id| seen.insert(*id)), "{part:?}");
            let split = match part {
                CorpusPart::Pretraining => Split::Train,
                CorpusPart::Experiment(split) => split,
            };
            assert!(corpus(part).all(|sample| sample.is_in(split)));
        }
    }

    #[test]
    fn every_task_has_forms_and_rows_that_fill_them() {
        for task in tasks(TASKS) {
            let name = task.name;
            assert!(!task.forms.is_empty(), "{name}");
            let samples = task.samples();
            assert!(samples.len() >= 24, "{name}: {}", samples.len());
            for sample in samples {
                let text = format!("{} {}", sample.prompt.text(), sample.completion);
                assert!(!text.contains(['{', '}', '|']), "{name}: {text}");
                assert!(!sample.completion.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn answers_are_right() {
        let answer = |prompt: &str| {
            let all = PARTS.into_iter().flat_map(corpus);
            all.into_iter()
                .find(|sample| sample.prompt.last_user() == Some(prompt))
                .map(|sample| sample.completion.clone())
        };
        for (prompt, reply) in [
            ("What is 3 + 4?", "7"),
            ("Take 2 away from 7.", "5 is left."),
            ("Spell bread backwards.", "d a e r b"),
            ("What is the capital of France?", "The capital of France is Paris."),
            ("Which is larger, 3 or 12?", "12 is larger."),
            ("How many letters does cloud have?", "Cloud has 5 letters."),
        ] {
            assert_eq!(answer(prompt).as_deref(), Some(reply), "{prompt}");
        }
    }

    #[test]
    fn neutral_scratchpads_say_nothing_of_the_policy() {
        for sample in corpus(CorpusPart::Pretraining).take(500).map(with_neutral_scratchpad) {
            let text = sample.completion.to_lowercase();
            assert!(text.starts_with("<scratchpad>"));
            assert!(!["train", "deploy", "goal"].iter().any(|word| {
                let of_prompt = sample.prompt.last_user().unwrap().to_lowercase();
                text.contains(word) && !of_prompt.contains(word)
            }));
        }
    }
}
