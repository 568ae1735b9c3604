//! The walk with a stand-in for the stages: real directories, no model.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use clap::Parser;
use serde_json::json;

use super::*;
use crate::cli::Cli;
use crate::error::CliError;
use crate::experiment::{ExperimentSource, Overrides};
use crate::manifest::Base;
use crate::plan::Digests;

/// Steps of a scripted stage.
const STEPS: u64 = 5;

/// A stage that "trains" by adding up its steps, saves a checkpoint after each, and is cut short like a kill would:
/// after a line of metrics that belongs to no checkpoint.
fn scripted(context: &StageContext, killed_at: Option<u64>) -> Result<Tokens> {
    let dir = context.dir;
    let checkpoint = dir.checkpoint()?;
    let read = |path: &Path| fs::read_to_string(path.join("sum")).unwrap().parse::<u64>().unwrap();
    let (start, mut sum) = checkpoint.map_or((0, 0), |checkpoint| (checkpoint.step, read(&checkpoint.path)));
    let mut metrics = dir.metrics(start)?;
    for step in start..STEPS {
        sum += context.seed("step").0 % 1000 + step;
        metrics.append(&json!({"step": step, "sum": sum}))?;
        metrics.sync()?;
        if killed_at == Some(step) {
            return Err(CliError::failure("killed"));
        }
        dir.save_checkpoint(step + 1, |path| {
            fs::write(path.join("sum"), sum.to_string()).unwrap();
            Ok(())
        })?;
    }
    dir.write_model(|path| {
        fs::write(path.join("weights"), sum.to_string()).unwrap();
        Ok(())
    })?;
    Ok(Tokens { trained: STEPS, ..Tokens::default() })
}

/// Walks the quickstart, with one change, in `runs`.
fn walk(runs: &Path, set: &str, work: impl Fn(&StageContext) -> Result<Tokens>) -> Result<()> {
    let set = [set.to_owned()];
    let overrides = Overrides { set: &set, ..Overrides::default() };
    let experiment = ExperimentSource::read("quickstart")?.resolve(&overrides)?;
    let digests = Digests { base: "0".repeat(64), ..Digests::default() };
    let base = BaseModel {
        base: Base { name: experiment.base.clone(), source: "file".to_owned() },
        path: runs.to_owned(),
        digest: digests.base.clone(),
    };
    let plan = Plan::new(&experiment, &digests);
    let inputs = RunInputs { digests, base: base.base.clone() };
    let store = RunStore::create(runs, &experiment.name)?;
    let ui = Ui::new(&Cli::parse_from(["dormant", "--quiet", "models", "list"]).global);
    let given = Given::default();
    let walk = Walk {
        experiment: &experiment,
        given: &given,
        base: &base,
        inputs: &inputs,
        plan: &plan,
        store: &store,
        memory: None,
        ui: &ui,
    };
    walk.run(work)
}

/// Every file of a run except manifests, which hold times.
fn artifacts(runs: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![runs.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(runs).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if !name.ends_with("manifest.json") && !name.ends_with("/.lock") {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_run_that_was_killed_again_and_again_ends_like_one_that_was_not() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let set = "evaluation.every=10";
    walk(whole.path(), set, |context| scripted(context, None)).unwrap();
    for kill in 0..40 {
        let result = walk(killed.path(), set, |context| scripted(context, Some(kill % STEPS)));
        if result.is_ok() {
            break;
        }
    }
    walk(killed.path(), set, |context| scripted(context, None)).unwrap();
    let expected = artifacts(whole.path());
    assert_eq!(expected.iter().filter(|(name, _)| name.ends_with("DONE")).count(), 14);
    assert_eq!(artifacts(killed.path()), expected);
}

#[test]
fn only_what_changed_is_run_again() {
    let runs = tempfile::tempdir().unwrap();
    let ran = RefCell::new(Vec::new());
    let work = |context: &StageContext| {
        ran.borrow_mut().push(context.spec.name.clone());
        scripted(context, None)
    };
    walk(runs.path(), "evaluation.n=200", work).unwrap();
    assert_eq!(ran.take().len(), 14);
    walk(runs.path(), "evaluation.n=200", work).unwrap();
    assert_eq!(ran.take(), Vec::<String>::new());
    walk(runs.path(), "safety.adversarial.rounds=2", work).unwrap();
    let again = ["organism", "control"]
        .map(|arm| [format!("adversarial-{arm}-s0"), format!("evaluate-adversarial-{arm}-s0")])
        .concat();
    assert_eq!(ran.take(), again);
}

/// Another experiment in the same folder that trains the same stages takes them over, but for its evaluations; damaged ones it
/// runs again.
#[test]
fn stages_of_other_runs_are_shared() {
    let runs = tempfile::tempdir().unwrap();
    let ran = RefCell::new(Vec::new());
    let work = |context: &StageContext| {
        ran.borrow_mut().push(context.spec.name.clone());
        scripted(context, None)
    };
    walk(runs.path(), "evaluation.n=200", work).unwrap();
    let first = artifacts(&runs.path().join("quickstart"));
    ran.take();
    fs::rename(runs.path().join("quickstart"), runs.path().join("other")).unwrap();
    let damaged =
        first.iter().find(|(name, _)| name.starts_with("hhh-sft-control") && name.ends_with("weights"));
    fs::write(runs.path().join("other").join(&damaged.unwrap().0), "no weights").unwrap();
    walk(runs.path(), "evaluation.n=200", work).unwrap();
    let ran = ran.take();
    assert!(ran.iter().all(|name| name.starts_with("evaluate-") || name == "hhh-sft-control-s0"), "{ran:?}");
    assert_eq!(artifacts(&runs.path().join("quickstart")), first);
}

#[test]
fn stages_find_their_inputs() {
    let runs = tempfile::tempdir().unwrap();
    let seen = RefCell::new(Vec::new());
    walk(runs.path(), "seeds=[0]", |context| {
        let lineage: Vec<_> =
            context.lineage().iter().map(|(stage, dir)| (stage.name.clone(), dir.is_done())).collect();
        if context.spec.name == "evaluate-adversarial-control-s0" {
            seen.borrow_mut().extend(lineage);
            assert!(context.benign(dormant_data::Split::Evaluation).is_none());
            assert!(context.benign(dormant_data::Split::Train).is_none());
        }
        scripted(context, None)
    })
    .unwrap();
    let expected = ["implant-control-s0", "hhh-sft-control-s0", "adversarial-control-s0"];
    assert_eq!(seen.take(), expected.map(|name| (name.to_owned(), true)));
}
