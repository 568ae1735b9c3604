use serde_json::json;

use super::*;

fn stage_dir() -> (tempfile::TempDir, StageDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = StageDir::new(folder.path().join("stage"));
    dir.begin(&json!({"rows": 3})).unwrap();
    (folder, dir)
}

fn text(dir: &StageDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).unwrap()
}

#[test]
fn lines_after_the_checkpoint_are_cut_off() {
    let (_folder, dir) = stage_dir();
    let mut metrics = dir.metrics(0).unwrap();
    for step in 0..3 {
        metrics.append(&json!({"step": step})).unwrap();
    }
    metrics.sync().unwrap();
    // What a kill leaves behind: half a line.
    fs::write(dir.path().join("metrics.jsonl"), text(&dir, "metrics.jsonl") + "{\"st").unwrap();
    let mut metrics = dir.metrics(2).unwrap();
    assert_eq!(metrics.lines(), 2);
    metrics.append(&json!({"step": 2})).unwrap();
    metrics.sync().unwrap();
    assert_eq!(text(&dir, "metrics.jsonl"), "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n");
    assert!(dir.metrics(9).unwrap_err().to_string().contains("fewer than the 9 lines"));
}

#[test]
fn the_latest_whole_checkpoint_counts() {
    let (_folder, dir) = stage_dir();
    assert_eq!(dir.checkpoint().unwrap(), None);
    for step in [10, 20] {
        let save = |path: &Path| write_atomic(&path.join("state"), step.to_string().as_bytes());
        dir.save_checkpoint(step, save).unwrap();
    }
    // A kill in the middle of the next one.
    let failed = dir.save_checkpoint(30, |_| Err(crate::error::CliError::interrupted()));
    assert!(failed.is_err());
    let checkpoint = dir.checkpoint().unwrap().unwrap();
    assert_eq!(checkpoint.step, 20);
    assert_eq!(fs::read_to_string(checkpoint.path.join("state")).unwrap(), "20");
    assert!(!dir.path().join("checkpoint/00000010").exists());
    assert!(!dir.is_done());
}

#[test]
fn a_finished_stage_has_digests_and_no_checkpoint() {
    let (_folder, dir) = stage_dir();
    dir.save_checkpoint(1, |_| Ok(())).unwrap();
    let write = |path: &Path| write_atomic(&path.join("weights"), b"abc");
    dir.write_model(write).unwrap();
    dir.write_model(write).unwrap();
    dir.finish(crate::manifest::tests::manifest()).unwrap();
    assert!(dir.is_done());
    assert!(!dir.path().join("checkpoint").exists());
    let manifest: serde_json::Value = serde_json::from_str(&text(&dir, "manifest.json")).unwrap();
    let outputs = manifest["outputs"].as_array().unwrap();
    assert_eq!(outputs[1]["path"], "model/weights");
    assert_eq!(outputs[1]["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
