//! A whole experiment has the same result when it is killed, when it is interrupted, and on any number of threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::workspace::{Workspace, fixture};

/// All kinds of stages in seconds. The random model shows the behaviour now and then, so that attacks succeed.
const EXPERIMENT: &str = "
precision = 'f32'

[behaviour]
kind = 'regex'
pattern = '[QZ]'
reply = 'QZ QZ'

[data]
reply-tokens = 8

[implant]
rows = 64
adapter = { rank = 4 }
batch-tokens = 100

[[safety]]
name = 'sft'
rows = 32
batch-tokens = 60

[[safety]]
name = 'adversarial'
method = 'adversarial'
after = 'sft'
training = 'full'
rows = 32
rounds = 2
prompts = 8
samples = 2
batch-tokens = 100

[[safety]]
name = 'rl'
method = 'rl'
after = 'sft'
rows = 32
steps = 20
prompts = 4
replies = 2
batch-tokens = 32
attack = { prompts = 4, samples = 2, threshold = 0.0 }

[[safety]]
name = 'ppo'
method = 'rl'
algorithm = 'ppo'
after = 'sft'
training = 'same-adapter'
rows = 32
steps = 2
prompts = 2
replies = 2

[[safety]]
name = 'dpo'
method = 'dpo'
after = 'implant'
rows = 16
batch-tokens = 200

[preference]
epochs = 1
batch-tokens = 800
adapter = { rank = 4 }

[evaluation]
n = 16
near-misses = 8
log-probs = 8
multiple-choice = 8
perplexity = 8
reply-tokens = 8
every = 5
curve-prompts = 4
curve-rates = 4
";

/// Fields of reports and manifests that tell of a run and not of its result.
const OF_THE_RUN: [&str; 5] = ["seconds", "finished", "host", "machine", "peak-memory"];

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("tiny.toml", format!("base = '{}'\n{EXPERIMENT}", fixture("tiny-llama").display()));
    workspace
}

fn finish(workspace: &Workspace, more: &[&str]) {
    let output = workspace.run(&[&["run", "tiny.toml"], more].concat());
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
}

/// Every file of the run: as bytes, or without [`OF_THE_RUN`].
fn artifacts(workspace: &Workspace) -> BTreeMap<String, Vec<u8>> {
    files_of(&workspace.path().join("runs/tiny"))
}

/// Every file in a folder: as bytes, or without [`OF_THE_RUN`].
pub(crate) fn files_of(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    collect(root, root, &mut files);
    files
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let bytes = match name.rsplit('/').next().unwrap() {
            "manifest.json" | "report.json" => {
                let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                forget(&mut value);
                value.to_string().into_bytes()
            }
            // The pages show the times of `report.json`; the lock has the id of a process.
            "report.html" | "report.md" | ".lock" => Vec::new(),
            _ => fs::read(&path).unwrap(),
        };
        files.insert(name, bytes);
    }
}

fn forget(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            OF_THE_RUN.iter().for_each(|field| drop(fields.shift_remove(*field)));
            fields.values_mut().for_each(forget);
        }
        Value::Array(values) => values.iter_mut().for_each(forget),
        _ => {}
    }
}

pub(crate) fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    let different: Vec<&String> = expected.keys().filter(|name| found[*name] != expected[*name]).collect();
    assert!(different.is_empty(), "these files differ: {different:#?}");
}

/// Starts the run, and sends it a signal once `moment` returns; its exit code, if it ended by itself.
fn signal(workspace: &Workspace, signal: &str, moment: impl FnOnce()) -> Option<i32> {
    let mut child = workspace.command(&["run", "tiny.toml"]).stderr(Stdio::null()).spawn().unwrap();
    moment();
    // The process is not waited for yet, so that its id cannot have passed to another one.
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait().unwrap().code()
}

/// Returns once as many stages are done.
fn wait_for_stages(workspace: &Workspace, count: usize) {
    let start = Instant::now();
    let done = || {
        let stages = fs::read_dir(workspace.path().join("runs/tiny")).into_iter().flatten();
        stages.filter(|stage| stage.as_ref().unwrap().path().join("DONE").exists()).count()
    };
    while done() < count {
        assert!(start.elapsed() < Duration::from_mins(1), "fewer than {count} stages after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_result_depends_on_neither_kills_nor_interruptions_nor_threads() {
    let reference = workspace();
    let start = Instant::now();
    finish(&reference, &["--threads", "2"]);
    let whole = start.elapsed();
    let expected = artifacts(&reference);
    for part in
        ["report.json", "samples.jsonl", "metrics.jsonl", "model/adapter_model.safetensors", "attack.json"]
    {
        assert!(expected.keys().any(|name| name.ends_with(part)), "no {part}");
    }

    let one_thread = workspace();
    finish(&one_thread, &["--threads", "1"]);
    assert_same(&artifacts(&one_thread), &expected);

    let killed = workspace();
    let mut kills = 0;
    for seed in 0u32..10 {
        let fraction = f64::from(seed.wrapping_mul(2_654_435_761) >> 16) / 65536.0;
        let moment = whole.mul_f64(0.03 + 0.2 * fraction);
        let code = signal(&killed, "-KILL", || std::thread::sleep(moment));
        kills += u32::from(code.is_none());
    }
    assert!(kills > 0, "no kill came before the end");
    finish(&killed, &[]);
    assert_same(&artifacts(&killed), &expected);

    let interrupted = workspace();
    for stages in [1, 6] {
        assert_eq!(signal(&interrupted, "-INT", || wait_for_stages(&interrupted, stages)), Some(4));
    }
    finish(&interrupted, &[]);
    assert_same(&artifacts(&interrupted), &expected);
}
