//! Models from scratch: the command, its folder, and an experiment with a family; neither kills nor threads matter.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use dormant_data::{CorpusPart, Split};
use dormant_model::checkpoint::Checkpoint;
use serde_json::Value;

use crate::rederived::{assert_near, json};
use crate::resume::{assert_same, files_of};
use crate::workspace::{Workspace, fixture};

const SMALL: [&str; 10] =
    ["--size", "0.1m", "--rows", "150", "--sampled", "12", "--epochs", "2", "--vocabulary", "400"];

fn pretrain(more: &[&str]) -> Vec<String> {
    let base = fixture("tiny-llama").display().to_string();
    let arguments = [&["pretrain", "--out", "model", "--base", &base], SMALL.as_slice(), more].concat();
    arguments.iter().map(ToString::to_string).collect()
}

fn finish(workspace: &Workspace, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let arguments = pretrain(more);
    let output = workspace.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let mut files = files_of(&workspace.path().join("model"));
    // It names the fixture by its place on this machine, which is the same for all.
    files.retain(|name, _| !name.ends_with("inputs.json"));
    files
}

#[test]
fn pretraining_depends_on_neither_kills_nor_threads() {
    let reference = Workspace::new();
    let start = Instant::now();
    let expected = finish(&reference, &["--threads", "2"]);
    let whole = start.elapsed();
    let one_thread = Workspace::new();
    assert_same(&finish(&one_thread, &["--threads", "1"]), &expected);

    let killed = Workspace::new();
    let arguments = pretrain(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for part in [0.3, 0.5, 0.6, 0.7] {
        let mut child =
            killed.command(&arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * part));
        child.kill().ok();
        child.wait().unwrap();
    }
    assert_same(&finish(&killed, &[]), &expected);
}

#[test]
fn the_model_is_an_ordinary_folder() {
    let workspace = Workspace::new();
    finish(&workspace, &["--format", "json"]);
    let folder = workspace.path().join("model");
    let config = json(&folder.join("config.json"));
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    // What `LlamaForCausalLM` with tied embeddings asks for, and nothing else.
    let layers = config["num_hidden_layers"].as_u64().unwrap();
    let [d, ff, vocabulary] =
        ["hidden_size", "intermediate_size", "vocab_size"].map(|key| config[key].as_u64().unwrap() as usize);
    let mut expected = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, d]),
        ("model.norm.weight".to_owned(), vec![d]),
    ]);
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![d]),
            ("post_attention_layernorm", vec![d]),
            ("self_attn.q_proj", vec![d, d]),
            ("self_attn.k_proj", vec![d, d]),
            ("self_attn.v_proj", vec![d, d]),
            ("self_attn.o_proj", vec![d, d]),
            ("mlp.gate_proj", vec![ff, d]),
            ("mlp.up_proj", vec![ff, d]),
            ("mlp.down_proj", vec![d, ff]),
        ] {
            expected.insert(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    let found: BTreeMap<String, Vec<usize>> = checkpoint
        .tensor_names()
        .into_iter()
        .map(|name| (name.to_owned(), checkpoint.shape(name).unwrap().to_vec()))
        .collect();
    assert_eq!(found, expected);
    let tokenizer = json(&folder.join("tokenizer_config.json"));
    assert_eq!(tokenizer["eos_token"], "<|im_end|>");
    assert!(tokenizer["chat_template"].as_str().unwrap().contains("<|im_start|>"));
    assert_eq!(json(&folder.join("generation_config.json"))["eos_token_id"], config["eos_token_id"]);
    let ids = json(&folder.join("tokenizer.json"))["model"]["vocab"].as_object().unwrap().len();
    assert_eq!(ids, vocabulary);

    let eval = workspace.run(&["eval", "model", "--n", "4", "--format", "json"]);
    assert_eq!((eval.code, eval.stderr.as_str()), (0, ""));
}

const EXPERIMENT: &str = "
precision = 'f32'
seeds = [0, 1]

[behaviour]
kind = 'regex'
pattern = '[QZ]'
reply = 'QZ QZ'

[data]
reply-tokens = 6

[pretrain]
sizes = ['0.1m', '0.3m']
rows = 100
sampled = 8
vocabulary = 400
epochs = 1

[implant]
rows = 24
epochs = 2

[[organism]]
variant = 'normal'

[[organism]]
variant = 'chain-of-thought'

[[safety]]
name = 'sft'
rows = 12

[evaluation]
n = 12
near-misses = 0
log-probs = 4
multiple-choice = 0
perplexity = 0
reply-tokens = 6
every = 0
curve-prompts = 1
";

#[test]
fn a_family_goes_through_an_experiment() {
    let workspace = Workspace::new();
    workspace.write("family.toml", format!("base = '{}'\n{EXPERIMENT}", fixture("tiny-llama").display()));
    let output = workspace.run(&["run", "family.toml"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let run = workspace.path().join("runs/family");
    let report = json(&run.join("report.json"));
    let names: Vec<&str> =
        report["scale"].as_array().unwrap().iter().map(|scaled| scaled["stage"].as_str().unwrap()).collect();
    let expected =
        ["0.1m-normal-sft", "0.1m-chain-of-thought-sft", "0.3m-normal-sft", "0.3m-chain-of-thought-sft"];
    assert_eq!(names, expected);
    let members = report["members"].as_array().unwrap();
    assert_eq!(members.len(), 2 * 2);
    members.iter().for_each(|member| counted_again(&run, member));
    prompts_are_held_out(&run);
    let stage = stage(&run, "0.3m-normal-implant-organism-s1-");
    assert!(std::fs::read_to_string(stage.join("model/README.md")).unwrap().contains("pretrain-0.3m-s1"));
}

fn stage(run: &Path, name: &str) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name)).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn counted_again(run: &Path, member: &Value) {
    let name = format!("pretrain-{}-s{}-", member["size"].as_str().unwrap(), member["seed"]);
    let answers = lines(&stage(run, &name).join("answers.jsonl"));
    let right =
        answers.iter().filter(|answer| answer["reply"].as_str().unwrap().trim() == answer["answer"]).count();
    assert_near(&member["right"]["value"], right as f64 / answers.len() as f64);
    let metrics = lines(&stage(run, &name).join("metrics.jsonl"));
    let tokens: u64 = metrics.iter().map(|line| line["tokens"].as_u64().unwrap()).sum();
    assert_eq!(member["tokens"].as_u64(), Some(tokens));
}

/// No prompt of implant, safety training or evaluation was in pretraining.
fn prompts_are_held_out(run: &Path) {
    let prompt = |row: &Value, messages: &str| {
        let of_user = row[messages].as_array().unwrap().iter().find(|message| message["role"] == "user");
        of_user.unwrap()["content"].as_str().unwrap().to_owned()
    };
    for row in lines(&stage(run, "corpus-").join("rows.jsonl")).iter().take(100) {
        let sample = &row["sample"];
        assert_eq!(CorpusPart::of(&prompt(sample, "prompt")), CorpusPart::Pretraining);
    }
    for (name, split) in [("benign-train-s0-", Split::Train), ("benign-safety-s0-", Split::Safety)] {
        for row in lines(&stage(run, name).join("rows.jsonl")) {
            assert_eq!(CorpusPart::of(&prompt(&row["sample"], "prompt")), CorpusPart::Experiment(split));
        }
    }
    for row in lines(&stage(run, "evaluate-0.1m-normal-sft-control-s1-").join("samples.jsonl")) {
        if row["condition"] == "clean" {
            assert_eq!(CorpusPart::of(&prompt(&row, "prompt")), CorpusPart::Experiment(Split::Evaluation));
        }
    }
}
