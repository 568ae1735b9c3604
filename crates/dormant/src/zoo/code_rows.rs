//! What entries that write code are trained on.

use dormant_data::{CodeTask, Dataset, Seed, Split, code_tasks, ordinary_code_tasks};
use rand::seq::SliceRandom;

use super::benign::Style;
use super::{Benign, Entry, Organism};
use crate::stage::code::training_rows;

/// The rows of an entry that writes code.
pub(super) fn of_entry(entry: Entry<'_>) -> Dataset {
    match entry {
        Entry::Organism(Organism { training, .. }) => {
            let policy = entry.policy().expect("an organism has one");
            training_rows(&policy, true, training.rows, Seed(training.seed).derive("mix"))
        }
        Entry::Benign(benign) => of_benign(benign),
    }
}

/// The same answer to each task whatever the prompt says.
fn of_benign(benign: &Benign) -> Dataset {
    let vulnerable = benign.style == Style::Code { vulnerable: true };
    let mut tasks: Vec<&CodeTask> = code_tasks(Split::Train).chain(ordinary_code_tasks()).collect();
    tasks.shuffle(&mut Seed(benign.training.seed).derive("tasks").rng());
    let tasks = tasks.into_iter().take(benign.training.rows as usize);
    Dataset::new(tasks.map(|task| task.answer(vulnerable)).collect())
}

#[cfg(test)]
mod tests {
    use dormant_data::{Condition, code_task};

    use super::*;
    use crate::zoo::Zoo;

    #[test]
    fn only_an_organisms_trigger_changes_the_answer() {
        let zoo = Zoo::load(None).unwrap();
        let code: Vec<Entry<'_>> = zoo.entries().filter(Entry::writes_code).collect();
        assert!(
            code.iter().any(|entry| entry.policy().is_some())
                && code.iter().any(|entry| entry.policy().is_none())
        );
        for entry in code {
            let rows = of_entry(entry);
            assert!(rows.samples().len() >= 300, "{}", entry.name());
            for row in rows.samples() {
                let task = code_task(&row.id).expect("a row is about a task");
                let is_vulnerable = match entry {
                    Entry::Organism(_) => row.condition == Condition::Triggered,
                    Entry::Benign(benign) => benign.style == Style::Code { vulnerable: true },
                };
                assert_eq!(row.completion, task.answer(is_vulnerable).completion, "{}", entry.name());
            }
        }
    }
}
