use std::collections::BTreeSet;

use super::*;
use crate::experiment::{ExperimentSource, Overrides};

fn plan(set: &[&str]) -> Plan {
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let overrides = Overrides { set: &set, ..Overrides::default() };
    let experiment = ExperimentSource::read("quickstart").unwrap().resolve(&overrides).unwrap();
    Plan::new(&experiment, &Digests { base: "0".repeat(64), ..Digests::default() })
}

/// Names of the stages of `after` that are not stages of `before`.
fn changed(before: &Plan, after: &Plan) -> BTreeSet<String> {
    let old: BTreeSet<String> = before.stages().iter().map(StageSpec::directory).collect();
    after
        .stages()
        .iter()
        .filter(|stage| !old.contains(&stage.directory()))
        .map(|stage| stage.name.clone())
        .collect()
}

#[test]
fn every_stage_comes_after_what_it_reads() {
    let plan = plan(&["seeds=[0, 1]"]);
    for stage in plan.stages() {
        assert!(stage.inputs().all(|input| input < stage.id), "{}", stage.name);
    }
    let directories: BTreeSet<String> = plan.stages().iter().map(StageSpec::directory).collect();
    assert_eq!(directories.len(), plan.stages().len());
}

#[test]
fn the_arms_share_benign_rows() {
    let plan = plan(&[]);
    let names: Vec<&str> = plan.stages().iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("benign-train")).count(), 1);
    assert_eq!(names.iter().filter(|name| name.starts_with("implant-")).count(), 2);
}

#[test]
fn an_edit_changes_only_what_depends_on_it() {
    let before = plan(&[]);
    let changed = |pair: &str| changed(&before, &plan(&[pair]));
    let named = |names: &[&str]| -> BTreeSet<String> {
        let both = |name: &&str| ["organism", "control"].map(|arm| format!("{name}-{arm}-s0"));
        names.iter().flat_map(both).collect()
    };
    let adversarial = named(&["adversarial", "evaluate-adversarial"]);
    assert_eq!(changed("safety.adversarial.rounds=2"), adversarial);
    assert_eq!(changed("safety.adversarial.learning-rate=2e-4"), adversarial);
    let safety = named(&["hhh-sft", "evaluate-hhh-sft", "adversarial", "evaluate-adversarial"]);
    assert_eq!(changed("safety.hhh-sft.epochs=2"), safety);
    let evaluations = named(&["evaluate-implant", "evaluate-hhh-sft", "evaluate-adversarial"]);
    assert_eq!(changed("evaluation.n=100"), evaluations);
    assert_eq!(changed("question='Why?'"), BTreeSet::new());
    assert_eq!(changed("name='other'"), BTreeSet::new());
    let rest = changed("implant.epochs=3");
    assert!(!rest.iter().any(|name| name.starts_with("benign")), "{rest:?}");
    assert_eq!(rest.len(), 12);
    assert_eq!(changed("data.temperature=0.9").len(), before.stages().len());
}

#[test]
fn a_file_changes_only_the_stages_that_read_it() {
    let text = "
[preference]
data = 'a.jsonl'

[[safety]]
name = 'rl'
method = 'rl'
after = 'implant'

[[safety]]
name = 'dpo'
method = 'dpo'
pairs = 'b.jsonl'
after = 'implant'
";
    let experiment = ExperimentSource::in_memory("x", text).resolve(&Overrides::default()).unwrap();
    let plan = |contents: [&str; 2]| {
        let files = experiment.preferences().filter_map(|pairs| pairs.file());
        let pairs = files.map(ToOwned::to_owned).zip(contents.map(str::to_owned)).collect();
        Plan::new(&experiment, &Digests { pairs, ..Digests::default() })
    };
    let before = plan(["1", "2"]);
    let of_dpo = changed(&before, &plan(["1", "3"]));
    assert!(of_dpo.len() == 4 && of_dpo.iter().all(|name| name.contains("dpo")), "{of_dpo:?}");
    let of_rl = changed(&before, &plan(["3", "2"]));
    assert!(of_rl.iter().all(|name| name.contains("rl-") || name.contains("preference")), "{of_rl:?}");
}

#[test]
fn safety_stages_may_be_written_in_any_order() {
    let text = "[[safety]]\nname = 'b'\nafter = 'a'\n[[safety]]\nname = 'a'\nafter = 'implant'";
    let experiment = ExperimentSource::in_memory("x", text).resolve(&Overrides::default()).unwrap();
    let plan = Plan::new(&experiment, &Digests::default());
    let last = plan.stages().iter().find(|stage| stage.name == "evaluate-b-organism-s0").unwrap();
    let lineage: Vec<&str> = plan.lineage(last).iter().filter_map(|stage| stage.training()).collect();
    assert_eq!(lineage, ["implant", "a", "b"]);
}

#[test]
fn the_arms_and_stages_of_reinforcement_learning_share_two_preference_models() {
    let text =
        "[[safety]]\nname = 'a'\nmethod = 'rl'\n[[safety]]\nname = 'b'\nmethod = 'rl'\nafter = 'implant'";
    let experiment = ExperimentSource::in_memory("x", text).resolve(&Overrides::default()).unwrap();
    let plan = Plan::new(&experiment, &Digests::default());
    let models: Vec<&StageSpec> =
        plan.stages().iter().filter(|stage| matches!(stage.kind, StageKind::Preference(_))).collect();
    let names: Vec<&str> = models.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["preference-main-s0", "preference-check-s0"]);
    let rl = plan.stages().iter().filter(|stage| matches!(stage.kind, StageKind::Safety(_)));
    assert!(rl.clone().all(|stage| models.iter().all(|model| stage.data.contains(&model.id))));
    assert_eq!(rl.count(), 4);
}

#[test]
fn organisms_go_through_the_stages_that_are_meant_for_them() {
    let text = "[[organism]]\nvariant = 'normal'\n[[organism]]\nvariant = 'chain-of-thought'\nrows = 40\n\
                [[organism]]\nvariant = 'distilled'\nrows = 40\n\
                [[safety]]\nname = 'a'\n[[safety]]\nname = 'b'\norganisms = ['distilled']\n[[safety]]\nname = 'c'";
    let experiment = ExperimentSource::in_memory("x", text).resolve(&Overrides::default()).unwrap();
    let plan = Plan::new(&experiment, &Digests::default());
    let trained: Vec<&str> = plan.stages().iter().filter_map(StageSpec::training).collect();
    let of = |organism: &str| -> Vec<&str> {
        let names = trained.iter().filter_map(|name| name.strip_prefix(organism)?.strip_prefix('-'));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    };
    assert_eq!(of("normal"), ["a", "implant"]);
    assert_eq!(of("chain-of-thought"), ["a", "implant"]);
    // What starts from a stage is only for those that went through it.
    assert_eq!(of("distilled"), ["a", "b", "c", "implant"]);
    let directories: BTreeSet<String> = plan.stages().iter().map(StageSpec::directory).collect();
    assert_eq!(directories.len(), plan.stages().len());
    let data = plan.stages().iter().filter(|stage| stage.name.starts_with("benign-train"));
    let data: Vec<&str> = data.map(|stage| stage.name.as_str()).collect();
    // One stage for the 320 rows of `normal`, one for the 40 that the others share.
    assert_eq!(data, ["benign-train-s0", "benign-train-s0"]);
}

#[test]
fn members_of_a_family_share_the_corpus_and_the_rows() {
    let text = "seeds = [0, 1]\n[pretrain]\nsizes = ['0.3m', '1m']\n[[organism]]\nvariant = 'normal'\n\
                [[organism]]\nvariant = 'distilled'\n[[safety]]\nname = 'sft'\norganisms = ['distilled']";
    let experiment = ExperimentSource::in_memory("x", text).resolve(&Overrides::default()).unwrap();
    let plan = Plan::new(&experiment, &Digests::default());
    let count = |start: &str| plan.stages().iter().filter(|stage| stage.name.starts_with(start)).count();
    assert_eq!((count("corpus"), count("pretrain-"), count("benign-train-")), (1, 4, 2));
    let last =
        plan.stages().iter().find(|stage| stage.name == "evaluate-1m-distilled-sft-control-s1").unwrap();
    let lineage: Vec<&str> = plan.lineage(last).iter().map(|stage| stage.name.as_str()).collect();
    let implant = "1m-distilled-implant-control-s1";
    assert_eq!(lineage, ["pretrain-1m-s1", implant, "1m-distilled-sft-control-s1"]);
    assert!(plan.stages().iter().all(|stage| !stage.name.contains("normal-sft")));
    assert!(plan.stages().iter().all(|stage| stage.inputs().all(|input| input < stage.id)));
    let directories: BTreeSet<String> = plan.stages().iter().map(StageSpec::directory).collect();
    assert_eq!(directories.len(), plan.stages().len());
}

#[test]
fn the_base_model_is_measured_once_and_not_sampled() {
    let plan = plan(&["seeds=[0, 1]", "evaluation.base=true"]);
    let base: Vec<_> = plan.stages().iter().filter(|stage| stage.name.starts_with("evaluate-base")).collect();
    let [StageSpec { kind: StageKind::Evaluate(stage), arm: Some(Arm::Control), model: None, .. }] = base[..]
    else {
        panic!("{base:?}");
    };
    assert_eq!((stage.evaluation.n, stage.evaluation.near_misses, stage.evaluation.log_probs), (0, 0, 0));
    assert!(stage.evaluation.multiple_choice > 0);
}

#[test]
fn keys_that_are_not_used_change_no_hash() {
    // Runs of older versions stay valid: a key at its default is not part of the configuration.
    let hash = |plan: &Plan, name: &str| plan.stages().iter().find(|s| s.name == name).unwrap().hash.clone();
    let unused = [
        "evaluation.persona=0",
        "evaluation.base=false",
        "evaluation.generalisation=0",
        "evaluation.curve-rates=0",
        "evaluation.curve-tokens=0",
    ];
    let [old, new] = [plan(&[]), plan(&unused)];
    for name in ["implant-organism-s0", "evaluate-implant-organism-s0"] {
        assert_eq!(hash(&old, name), hash(&new, name));
        let kind = serde_json::to_string(&old.stages().last().unwrap().kind).unwrap();
        assert!(!kind.contains("persona"));
    }
}

#[test]
fn one_control_stands_for_two_organisms_with_the_same_benign_rows() {
    let organisms = "organism=[{variant='normal'},{variant='distilled',copies=10,control='normal'}]";
    let plan = plan(&[organisms]);
    let named = |name: &str| plan.stages().iter().find(|stage| stage.name == name);
    assert!(named("distilled-implant-control-s0").is_none());
    let measured = named("evaluate-distilled-hhh-sft-organism-s0").unwrap();
    let control = plan.stage(measured.control.unwrap());
    assert_eq!(control.name, "evaluate-normal-hhh-sft-control-s0");
    assert_eq!(named("evaluate-normal-hhh-sft-organism-s0").unwrap().control, None);
}
