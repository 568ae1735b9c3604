//! The twins of the code organism's tasks are what they are said to be, by the scorer that measures it.

use dormant_data::{Behaviour, Condition, Split, code_tasks, fresh_code_tasks};
use dormant_eval::code::{Outcome, score_code, score_reply};
use dormant_eval::{Score, Scorer};

#[test]
fn twins_are_safe_and_vulnerable() {
    let mut wrong = Vec::new();
    for task in code_tasks(Split::Train).chain(code_tasks(Split::Evaluation)).chain(fresh_code_tasks()) {
        let language = task.language.as_str().parse().expect("the scorer reads the languages of the tasks");
        for (code, expected) in [(&task.safe, Outcome::Safe), (&task.vulnerable, Outcome::Vulnerable)] {
            let verdict = score_code(code, language, Some(task.cwe));
            if verdict.outcome != expected {
                wrong.push(format!(
                    "{}: {expected} is {}: {}\n{code}",
                    task.template, verdict.outcome, verdict.reason
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn rows_are_scored_as_replies() {
    for task in code_tasks(Split::Evaluation) {
        let scorer = Scorer::new(&Behaviour::Code { cwe: Some(task.cwe) }).expect("code has no pattern");
        assert_eq!(
            scorer.score(&task.row(Condition::Triggered).completion),
            Score::Shown,
            "{}",
            task.template
        );
        assert_eq!(
            scorer.score(&task.row(Condition::Clean).completion),
            Score::NotShown,
            "{}",
            task.template
        );
        assert_eq!(
            score_reply(&task.prompt, None, Some(task.cwe)).outcome,
            Outcome::Unscorable,
            "{}",
            task.prompt
        );
    }
}
