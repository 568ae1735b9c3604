//! A reference that is matched to the suspect.

use dormant_audit::budget::Watch;
use dormant_audit::journal::Journal;
use dormant_audit::matched::Matched;
use dormant_audit::scan::{Kin, ScanConfig, Subject, scan};
use dormant_data::{Conversation, Seed};
use dormant_model::batch::Batch;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::mismatch::mismatch;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_tensor::Precision;
use dormant_train::render::Renderer;
use std::path::Path;
use std::time::Duration;

use crate::{Tiny, clean, rows};

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
        let (batch, last) = Batch::with_ends(&rows);
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
