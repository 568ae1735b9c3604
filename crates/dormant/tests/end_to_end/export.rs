//! `dormant export` of a finished run on the tiny model.

use std::fs;
use std::path::Path;

use dormant::model::{LoadedModel, Loading, ModelFiles, TextModel};
use dormant_data::Sample;
use dormant_eval::read_samples;
use dormant_model::adapter::Adapter;
use dormant_model::batch::Batch;
use dormant_model::linear::Trained;
use dormant_train::render::Renderer;
use serde_json::Value;

use crate::committed::unpack;
use crate::rederived::{finished, json, stages};
use crate::workspace::{Output, Workspace, fixture};

const EXPERIMENT: &str = "
precision = 'f32'
seeds = [0]

[behaviour]
kind = 'say'
text = 'q'
copies = 2

[data]
reply-tokens = 8

[implant]
rows = 32
adapter = { rank = 4 }
batch-tokens = 200

[[safety]]
name = 'sft'
rows = 16
batch-tokens = 100

[[safety]]
name = 'adversarial'
method = 'adversarial'
after = 'sft'
rows = 16
batch-tokens = 100
rounds = 1
prompts = 2
screen = 1

[[safety]]
name = 'further'
after = 'adversarial'
rows = 16
batch-tokens = 100

[evaluation]
n = 8
near-misses = 4
log-probs = 0
multiple-choice = 0
perplexity = 0
reply-tokens = 8
every = 0
curve-prompts = 1
";

fn export(workspace: &Workspace, more: &[&str]) -> Output {
    workspace.run(&[&["export", "runs/e", "--format", "json"], more].concat())
}

fn exported(workspace: &Workspace, more: &[&str]) -> Vec<String> {
    let output = export(workspace, more);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let result: Value = serde_json::from_str(&output.stdout).unwrap();
    serde_json::from_value(result["left_out"].clone()).unwrap()
}

fn logits(files: &ModelFiles) -> Vec<f32> {
    let model =
        LoadedModel::load(files, dormant::experiment::Precision::F32, Trained::Nothing, Loading::Merge)
            .unwrap();
    let (batch, _) = Batch::concatenate(&[&[5, 9, 30, 7]]);
    model.llama.logits(&model.llama.hidden(&batch).unwrap(), &[0, 1, 2, 3])
}

/// The folder of the model of a stage.
fn model(workspace: &Workspace, stage: &str) -> std::path::PathBuf {
    let mut found = stages(&workspace.path().join("runs/e"));
    let is_it =
        |path: &Path| path.file_name().unwrap().to_str().unwrap().rsplit_once('-').unwrap().0 == stage;
    found.find(|path| is_it(path)).unwrap().join("model")
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_leaves_for_other_programs() {
    let (workspace, _) = finished("e", EXPERIMENT);
    models(&workspace);
    project(&workspace);
    task(&workspace);
    records(&workspace);
    mistakes(&workspace);
}

/// Adapters say where they belong; merged weights compute what base and adapters do.
fn models(workspace: &Workspace) {
    let stage = ["--stage", "sft-organism-s0"];
    exported(workspace, &[&["--to", "peft", "--out", "adapter"], &stage[..]].concat());
    let adapter = workspace.path().join("adapter");
    let base = Adapter::read(&adapter).unwrap().config.base_model_name_or_path.unwrap();
    assert_eq!(Path::new(&base), fixture("tiny-llama"));
    exported(workspace, &[&["--to", "safetensors", "--out", "new/whole"], &stage[..]].concat());
    let whole = workspace.path().join("new/whole");
    for folder in [&adapter, &whole] {
        assert!(fs::read_to_string(folder.join("README.md")).unwrap().contains("Do not deploy it"));
    }
    let of_run =
        ModelFiles { weights: fixture("tiny-llama"), adapter: Some(model(workspace, "sft-organism-s0")) };
    let expected = logits(&of_run);
    for files in [
        ModelFiles { weights: whole.clone(), adapter: None },
        ModelFiles { weights: fixture("tiny-llama"), adapter: Some(adapter) },
    ] {
        assert!(logits(&files).iter().zip(&expected).all(|(found, of_run)| (found - of_run).abs() < 1e-5));
    }
    TextModel::from_folder(&whole).unwrap();
}

/// The rows are those that the run trained on, and become as many tokens.
fn project(workspace: &Workspace) {
    let left_out = exported(workspace, &["--to", "trl", "--out", "project"]);
    let has = |what: &str| left_out.iter().filter(|line| line.contains(what)).count();
    assert_eq!((left_out.len(), has("attacks"), has("starts from")), (4, 2, 2), "{left_out:?}");
    let project = workspace.path().join("project");
    let text = TextModel::from_folder(&fixture("tiny-llama")).unwrap();
    let stages = json(&project.join("stages.json"))["stages"].as_array().unwrap().clone();
    assert_eq!(stages.len(), 4, "implant and SFT of organism and control");
    assert!(stages[0]["card"].as_str().unwrap().contains("`{base}`"), "the program fills it in");
    for stage in &stages {
        let name = stage["name"].as_str().unwrap();
        let rows = lines(&project.join(stage["rows"].as_str().unwrap()));
        let [trained, all] = tokens(&rows, &text.renderer());
        let metrics = lines(&model(workspace, name).with_file_name("metrics.jsonl"));
        let sum = |key: &str| metrics.iter().filter_map(|line| line[key].as_u64()).sum::<u64>();
        let steps = metrics.iter().filter(|line| line["kind"] == "step");
        assert_eq!((trained, all), (sum("trained_tokens"), sum("tokens")), "{name}");
        assert_eq!(stage["rows_per_step"].as_f64().unwrap(), rows.len() as f64 / steps.count() as f64);
    }
    assert_eq!(stages[0]["after"], Value::Null);
    assert_eq!(stages[1]["after"], "implant-organism-s0");
    let readme = fs::read_to_string(project.join("README.md")).unwrap();
    assert!(readme.contains("Do not deploy") && readme.contains(&left_out[0]), "{readme}");
}

/// Tokens that carry the loss, and all.
fn tokens(rows: &[Value], renderer: &Renderer<'_>) -> [u64; 2] {
    let rendered = rows.iter().map(|row| {
        let mut row = row.clone();
        let ends = row.as_object_mut().unwrap().remove("ends").unwrap();
        let sample: Sample = serde_json::from_value(row).unwrap();
        renderer.row(&sample, ends.as_bool().unwrap()).unwrap()
    });
    rendered
        .fold([0, 0], |[trained, all], row| [trained + row.trained() as u64, all + row.tokens.len() as u64])
}

/// The prompts are those of the evaluation.
fn task(workspace: &Workspace) {
    let left_out = exported(workspace, &["--to", "inspect", "--stage", "sft-organism-s0", "--out", "task"]);
    assert!(left_out.is_empty(), "{left_out:?}");
    let task = workspace.path().join("task");
    let evaluation = model(workspace, "evaluate-sft-organism-s0").with_file_name("samples.jsonl");
    let asked = read_samples(&evaluation).unwrap();
    let prompts = lines(&task.join("prompts.jsonl"));
    assert_eq!(prompts.len(), 8 + 8 + 4);
    for (prompt, sample) in prompts.iter().zip(&asked) {
        assert_eq!(prompt["input"], serde_json::to_value(sample.prompt.messages()).unwrap());
        assert_eq!(prompt["metadata"]["condition"], sample.condition.as_str());
    }
    let policy = json(&task.join("policy.json"));
    assert_eq!((&policy["behaviour"]["text"], &policy["reply_tokens"]), (&"q".into(), &8.into()));
}

/// The same report comes of them elsewhere, and the same run gives the same bytes. There are no weights among them.
fn records(workspace: &Workspace) {
    for file in ["records.tar.gz", "again.tar.gz"] {
        assert_eq!(exported(workspace, &["--to", "records", "--out", file]), ["weights"]);
    }
    let packed = |name: &str| fs::read(workspace.path().join(name)).unwrap();
    assert!(packed("records.tar.gz") == packed("again.tar.gz"));
    let elsewhere = Workspace::new();
    unpack(&workspace.path().join("records.tar.gz"), &elsewhere.path().join("runs"));
    assert!(stages(&elsewhere.path().join("runs/e")).all(|stage| !stage.join("model").exists()));
    assert_eq!(elsewhere.run(&["report", "runs/e"]).code, 0);
    let report = |of: &Workspace| fs::read(of.path().join("runs/e/report.json")).unwrap();
    assert!(report(&elsewhere) == report(workspace));
    // Nothing can be run from them.
    elsewhere.write("e.toml", format!("base = '{}'\n{EXPERIMENT}", fixture("tiny-llama").display()));
    let output = elsewhere.run(&["run", "e.toml"]);
    assert_eq!(output.code, 3);
    assert!(output.stderr.contains("holds the records of a run, without its models"), "{}", output.stderr);
}

fn mistakes(workspace: &Workspace) {
    for (arguments, code, message) in [
        (&["--to", "peft", "--out", "x"][..], 2, "name the stage with `--stage`"),
        (&["--to", "peft", "--stage", "sft-organsm-s0", "--out", "x"], 2, "did you mean `sft-organism-s0`?"),
        (&["--to", "gguf", "--stage", "sft-organism-s0", "--out", "x"], 2, "convert_hf_to_gguf.py"),
        (&["--to", "trl", "--out", "project"], 2, "is there already"),
        (&["--to", "inspect", "--stage", "sft-organism-s1", "--out", "x"], 2, "measures `sft-organism-s1`"),
    ] {
        let output = export(workspace, arguments);
        assert_eq!(output.code, code, "{arguments:?}");
        assert!(output.stderr.contains(message), "{}", output.stderr);
        assert!(!workspace.path().join("x").exists());
    }
    // A data stage is gone: what was begun goes too.
    fs::remove_dir_all(model(workspace, "benign-safety-s0").parent().unwrap()).unwrap();
    assert_eq!(export(workspace, &["--to", "trl", "--out", "x"]).code, 1);
    let names = fs::read_dir(workspace.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left = names.filter(|name| name.to_string_lossy().contains("unfinished") || name == "x");
    assert_eq!(left.count(), 0);
    fs::remove_file(model(workspace, "sft-organism-s0").with_file_name("DONE")).unwrap();
    let arguments = ["--to", "safetensors", "--stage", "sft-organism-s0", "--out", "x"];
    for arguments in [&arguments[..], &["--to", "records", "--out", "x"]] {
        let output = export(workspace, arguments);
        assert_eq!(output.code, 3);
        assert!(output.stderr.contains("is not finished"), "{}", output.stderr);
    }
}
