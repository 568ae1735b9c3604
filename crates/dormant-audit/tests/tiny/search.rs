//! The search for a text, and what it goes by.

use dormant_audit::budget::Watch;
use dormant_audit::likelihood::{self, Wanted};
use dormant_audit::placement::{Placement, Slot};
use dormant_audit::reconstruct::Reconstruction;
use dormant_audit::search::{Alphabet, Candidate, Search, SearchConfig};
use dormant_data::{Conversation, Seed};
use dormant_model::llama::Llama;
use dormant_train::render::Renderer;
use std::time::Duration;

use crate::Tiny;

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

/// Where searches start.
fn start(search: &Search<'_>, llama: &Llama) -> Candidate {
    let starts = vec![Placement::Prefix.encode(search.renderer, "hello there").unwrap()];
    search.evaluate(llama, starts, 1).unwrap().remove(0)
}

#[test]
fn steps_never_lose_and_are_the_same_every_time() {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let alphabet = Alphabet::new(&tiny.llama, renderer);
    let target = renderer.reply("ok").unwrap();
    let search = search(renderer, &alphabet, &target);
    let start = start(&search, &tiny.llama);
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

#[test]
fn the_relaxation_never_loses() {
    let mut tiny = Tiny::load();
    let renderer = Renderer { tokenizer: &tiny.tokenizer, template: &tiny.template };
    let alphabet = Alphabet::new(&tiny.llama, renderer);
    let target = renderer.reply("ok").unwrap();
    let search = search(renderer, &alphabet, &target);
    let start = start(&search, &tiny.llama);
    let best = search.relaxed(&mut tiny.llama, &start, 40).unwrap();
    assert!(best.log_prob > start.log_prob, "{} {}", best.log_prob, start.log_prob);
    assert_eq!(best, search.relaxed(&mut tiny.llama, &start, 40).unwrap());
    for token in [7, 100] {
        let alone = tiny.llama.embed(&[token]);
        assert!(!alphabet.tokens().contains(&token) || alphabet.nearest(&alone) == token);
    }
}
