//! Defences.

use dormant_audit::amplify::amplified;
use dormant_audit::budget::Watch;
use dormant_audit::defend::beear::{BeearConfig, beear};
use dormant_audit::defend::clean_gen::{RATIO, clean_gen};
use dormant_audit::defend::crow::{CrowConfig, crow};
use dormant_audit::defend::lat::{LatConfig, lat};
use dormant_audit::defend::training::Training;
use dormant_data::Seed;
use dormant_eval::measure::continuation_sums;
use dormant_model::batch::Batch;
use dormant_model::generate::{GenerateConfig, Request};
use dormant_model::head::Target;
use dormant_model::llama::Llama;
use dormant_model::llama::latent::Shift;
use dormant_model::lora::LoraConfig;
use dormant_model::sampler::Sampling;
use dormant_tensor::Buffer;
use dormant_train::render::Rendered;
use std::time::Duration;

use crate::{Tiny, rows};

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
    let sums = continuation_sums(&llama, &pairs).unwrap();
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
