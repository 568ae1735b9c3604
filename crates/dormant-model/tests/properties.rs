//! What must hold for any tokens, on the random model of `fixtures/tiny-llama`: reading through the cache, packing,
//! batching, merging an adapter, files and threads change nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use dormant_model::adapter::Adapter;
use dormant_model::adapter_files::SavedTensor;
use dormant_model::batch::Batch;
use dormant_model::checkpoint::{Checkpoint, save_safetensors};
use dormant_model::error::Error;
use dormant_model::generate::{Finish, GenerateConfig, Reply, Request};
use dormant_model::head::Target;
use dormant_model::kv_cache::KvCache;
use dormant_model::linear::Trained;
use dormant_model::llama::{Inputs, Llama, LoadOptions, Saving};
use dormant_model::lora::LoraConfig;
use dormant_model::sampler::Sampling;
use dormant_tensor::Precision;
use proptest::prelude::*;

const VOCABULARY: u32 = 512;

static MODEL: LazyLock<Llama> = LazyLock::new(|| load(Trained::Nothing, None));

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn load(trained: Trained, merged: Option<&Adapter>) -> Llama {
    let checkpoint = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    Llama::load_merged(&checkpoint, LoadOptions::new(Precision::F32, trained), merged).unwrap()
}

fn with_adapter(adapter: &Adapter) -> Llama {
    let mut model = load(Trained::Lora, None);
    model.add_adapter(adapter).unwrap();
    model
}

/// An adapter that changes the model: B is not zero.
fn random_adapter(rank: usize, rslora: bool, seed: u64) -> Adapter {
    let mut model = load(Trained::Lora, None);
    model.add_lora(&LoraConfig { rank, alpha: 8.0, rslora, ..LoraConfig::default() }, seed).unwrap();
    for (p, parameter) in model.parameters_mut().into_iter().enumerate() {
        let values = parameter.value.iter_mut().enumerate();
        values.for_each(|(i, x)| *x = ((i * 37 + p * 101 + seed as usize) % 89) as f32 / 890.0 - 0.05);
    }
    model.adapter("tiny-llama").unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Logits after every token, `[position, vocabulary]`.
fn logits(model: &Llama, tokens: &[u32]) -> Vec<f32> {
    let (batch, _) = Batch::concatenate(&[tokens]);
    let rows: Vec<usize> = (0..tokens.len()).collect();
    model.logits(&model.hidden(&batch).unwrap(), &rows)
}

/// The same, read through the cache: `prompt` tokens at once, the others one at a time.
fn cached_logits(model: &Llama, tokens: &[u32], prompt: usize) -> Vec<f32> {
    let mut cache = KvCache::new(model);
    let (batch, _) = Batch::concatenate(&[&tokens[..prompt]]);
    let (ids, hidden) = model.prefill(&mut cache, &batch, None).unwrap();
    let mut out = model.logits(&hidden, &(0..prompt).collect::<Vec<_>>());
    let reply = cache.add(model, ids.last().copied(), tokens.len() - prompt);
    for token in &tokens[prompt..] {
        let hidden = model.extend(&mut cache, &[(reply, std::slice::from_ref(token))]).unwrap();
        out.extend(model.logits(&hidden, &[0]));
    }
    out
}

fn generate(requests: &[Request], config: &GenerateConfig) -> Vec<Reply> {
    MODEL.generate(requests, config, &|_, _| false, &mut |_, _| true).unwrap()
}

fn sampled(max_new_tokens: usize, concurrency: usize) -> GenerateConfig {
    let config = GenerateConfig::new(max_new_tokens, Sampling::temperature(1.0), (0..24).collect());
    GenerateConfig { concurrency, ..config }
}

fn tokens(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..VOCABULARY, length)
}

/// Ragged prompts; some begin alike, so that prefixes are shared.
fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (any::<bool>(), tokens(1..30), any::<u64>()).prop_map(|(alike, tail, seed)| {
        let prompt = if alike { (40..60).chain(tail).collect() } else { tail };
        Request { prompt, seed }
    });
    prop::collection::vec(request, 1..12)
}

/// Loss and gradients of a row whose second half is trained.
fn gradients(model: &mut Llama, tokens: &[u32]) -> (Vec<f32>, Vec<Vec<f32>>) {
    let (batch, _) = Batch::concatenate(&[tokens]);
    let target = |row: usize| Target { row, token: tokens[row + 1], weight: -0.5 };
    let targets: Vec<Target> = (tokens.len() / 2..tokens.len() - 1).map(target).collect();
    let activations = model.forward(&batch).unwrap();
    let (log_probs, d_hidden) = model.log_probs_backward(&activations.hidden, &targets);
    model.backward(activations, d_hidden, Inputs::Unwanted);
    (log_probs, model.parameters_mut().into_iter().map(|p| p.gradient.clone()).collect())
}

/// The tiny model with an adapter beside it, or to be trained as a whole.
fn trainable(trained: Trained, precision: Precision, saving: Saving) -> Llama {
    let checkpoint = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    let options = LoadOptions { precision, trained, saving };
    let mut model = Llama::load_merged(&checkpoint, options, None).unwrap();
    if trained == Trained::Lora {
        model.add_adapter(&random_adapter(4, false, 5)).unwrap();
    }
    model
}

/// The adapter with an output layer of its own: `factor` times the embedding.
fn with_head(adapter: Adapter, factor: f32) -> Adapter {
    let all: Vec<u32> = (0..VOCABULARY).collect();
    let values: Vec<f32> = MODEL.embed(&all).iter().map(|x| x * factor).collect();
    let shape = vec![VOCABULARY as usize, values.len() / VOCABULARY as usize];
    Adapter { saved: vec![saved("lm_head.weight", false, shape, values)], ..adapter }
}

fn saved(name: &str, is_base: bool, shape: Vec<usize>, values: Vec<f32>) -> SavedTensor {
    SavedTensor { name: name.to_owned(), is_base, shape, values }
}

#[test]
fn a_weight_below_factors_takes_the_place_of_both_that_are_tied() {
    let shape = with_head(random_adapter(1, false, 1), 2.0).saved[0].shape.clone();
    let values: Vec<f32> =
        MODEL.embed(&(0..VOCABULARY).collect::<Vec<_>>()).iter().map(|x| -2.0 * x).collect();
    let [embedding, head] = ["model.embed_tokens.weight", "lm_head.weight"]
        .map(|name| saved(name, true, shape.clone(), values.clone()));
    let adapter = |saved: Vec<SavedTensor>| Adapter { saved, ..random_adapter(1, false, 1) };
    let both =
        logits(&load(Trained::Nothing, Some(&adapter(vec![embedding.clone(), head.clone()]))), &[1, 2, 3]);
    for one in [&embedding, &head] {
        let one = load(Trained::Nothing, Some(&adapter(vec![one.clone()])));
        assert!(bits(&logits(&one, &[1, 2, 3])) == bits(&both));
    }
    let mut other = head;
    other.values[0] += 1.0;
    let checkpoint = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    let options = LoadOptions::new(Precision::F32, Trained::Nothing);
    let error = Llama::load_merged(&checkpoint, options, Some(&adapter(vec![embedding, other]))).unwrap_err();
    assert!(matches!(error, Error::AdapterTied), "{error}");
}

/// `tiny-llama`, of which a copy says that the two ends are one, with an output layer all the same.
fn with_tied_head(change: impl FnOnce(&mut [f32])) -> Result<Llama, Error> {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    let read = |name: &str| {
        let shape = tiny.shape(name).unwrap().to_vec();
        (name.to_owned(), shape.clone(), tiny.tensor_f32(name, &shape).unwrap())
    };
    let (_, shape, mut head) = read("model.embed_tokens.weight");
    change(&mut head);
    let tensors = tiny.tensor_names().into_iter().map(read);
    let tensors = tensors.chain([("lm_head.weight".to_owned(), shape, head)]);
    save_safetensors(folder.path(), tiny.config(), tensors, BTreeMap::new()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    Llama::load_merged(&checkpoint, LoadOptions::new(Precision::F32, Trained::Nothing), None)
}

#[test]
fn an_output_layer_that_is_not_tied_though_the_configuration_says_so_is_refused() {
    with_tied_head(|_| ()).unwrap();
    let error = with_tied_head(|head| head[7] += 1.0).unwrap_err();
    assert!(matches!(error, Error::HeadNotTied { .. }), "{error}");
}

/// The adapter with the factors of `q_proj` taken twice, at half their scale: what it does is the same.
fn with_patterns(mut adapter: Adapter) -> Adapter {
    let (rank, alpha) = (adapter.config.r, adapter.config.lora_alpha);
    for tensor in adapter.tensors.iter_mut().filter(|t| t.module.ends_with("q_proj")) {
        tensor.a.values = tensor.a.values.repeat(2);
        tensor.a.rows *= 2;
        let rows = tensor.b.values.chunks_exact(rank);
        tensor.b.values = rows.flat_map(|row| row.repeat(2)).collect();
        tensor.b.columns *= 2;
    }
    adapter.config.rank_pattern = [("q_proj".to_owned(), 2 * rank)].into_iter().collect();
    adapter.config.alpha_pattern = [("q_proj".to_owned(), alpha)].into_iter().collect();
    adapter
}

fn error_between(a: &[f32], b: &[f32]) -> f32 {
    let scale = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
}

#[test]
fn adapters_whose_modules_differ_in_rank_and_scale_add_up_and_are_written() {
    let tokens = [1, 2, 3, 4, 5, 6];
    let (first, second) = (random_adapter(3, false, 1), random_adapter(1, true, 2));
    let patterned = with_patterns(first.clone());
    let expected = logits(&with_adapter(&first.then(&second).unwrap()), &tokens);
    for sum in [patterned.then(&second).unwrap(), second.then(&patterned).unwrap()] {
        assert_eq!((sum.config.r, sum.config.rank("model.layers.0.self_attn.q_proj")), (4, 7));
        let folder = tempfile::tempdir().unwrap();
        sum.write(folder.path(), BTreeMap::new()).unwrap();
        let read = Adapter::read(folder.path()).unwrap();
        assert!(error_between(&expected, &logits(&with_adapter(&read), &tokens)) < 1e-5);
    }
    let beside = with_adapter(&patterned);
    let again = beside.adapter("tiny-llama").unwrap();
    assert!(bits(&logits(&with_adapter(&again), &tokens)) == bits(&logits(&beside, &tokens)));
    let folder = tempfile::tempdir().unwrap();
    again.write(folder.path(), BTreeMap::new()).unwrap();
    let plain = second.then(&first).unwrap().config;
    assert!(plain.rank_pattern.is_empty() && plain.alpha_pattern.is_empty());
}

#[test]
fn adapters_of_different_models_do_not_add_up() {
    let (first, mut second) = (random_adapter(3, false, 1), random_adapter(2, false, 2));
    second.tensors[0].b.rows -= 1;
    let rows = second.tensors[0].b.rows;
    second.tensors[0].b.values.truncate(rows * 2);
    let error = first.then(&second).unwrap_err();
    assert!(matches!(&error, Error::AdapterShape { .. }), "{error}");
}

#[test]
fn an_output_layer_that_was_trained_as_a_whole_takes_the_place_of_the_tied_one() {
    let adapter = random_adapter(2, false, 1);
    let tokens = [1, 2, 3, 4, 5];
    let plain = logits(&load(Trained::Nothing, Some(&adapter)), &tokens);
    let doubled = with_head(adapter.clone(), 2.0);
    let own = logits(&load(Trained::Nothing, Some(&doubled)), &tokens);
    assert!(
        plain.iter().zip(&own).all(|(p, o)| (2.0 * p - o).abs() < 1e-4),
        "the input embedding is as it was"
    );
    let mut model = load(Trained::Lora, None);
    let refused = model.add_adapter(&doubled).unwrap_err().to_string();
    assert!(refused.contains("`lm_head.weight`"), "{refused}");
    let mut longer = doubled;
    longer.saved[0].shape[0] += 1;
    let checkpoint = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    let options = LoadOptions::new(Precision::F32, Trained::Nothing);
    let error = Llama::load_merged(&checkpoint, options, Some(&longer)).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight") && error.contains("513"), "{error}");
}

#[test]
fn saving_memory_changes_no_bit() {
    let tokens: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % VOCABULARY).collect();
    for trained in [Trained::Lora, Trained::All] {
        for precision in [Precision::F32, Precision::Bf16] {
            let run = |saving| gradients(&mut trainable(trained, precision, saving), &tokens);
            let (log_probs, expected) = run(Saving::Nothing);
            for saving in [Saving::Activations, Saving::Weights] {
                let (other, actual) = run(saving);
                assert_eq!(bits(&other), bits(&log_probs), "{trained:?} {precision:?} {saving:?}");
                let equal = expected.iter().zip(&actual).all(|(e, a)| bits(e) == bits(a));
                assert!(equal, "gradients differ: {trained:?} {precision:?} {saving:?}");
            }
        }
    }
}

fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn a_reply_ends_where_the_model_can_read_no_further() {
    let positions = MODEL.max_positions();
    let config = GenerateConfig::new(usize::MAX, Sampling::Greedy, Vec::new());
    let prompt: Vec<u32> = (0..positions as u32 - 2).map(|i| i % VOCABULARY).collect();
    let reply = &generate(&[Request { prompt, seed: 0 }], &config)[0];
    assert_eq!((reply.tokens.len(), reply.finish), (3, Finish::Length));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn reading_through_the_cache_is_the_forward_pass(tokens in tokens(2..80), cut in any::<prop::sample::Index>()) {
        let prompt = 1 + cut.index(tokens.len() - 1);
        let (full, cached) = (logits(&MODEL, &tokens), cached_logits(&MODEL, &tokens, prompt));
        prop_assert!(bits(&full) == bits(&cached), "logits differ");
    }

    #[test]
    fn greedy_replies_follow_the_forward_pass(prompt in tokens(1..40)) {
        let config = GenerateConfig::new(12, Sampling::Greedy, Vec::new());
        let reply = &generate(&[Request { prompt: prompt.clone(), seed: 0 }], &config)[0].tokens;
        let all = [prompt.as_slice(), reply].concat();
        let logits = logits(&MODEL, &all);
        for (position, row) in logits.chunks_exact(VOCABULARY as usize).enumerate().skip(prompt.len() - 1) {
            let Some(&next) = all.get(position + 1) else { break };
            prop_assert!(row.iter().all(|x| *x <= row[next as usize]), "token {} is not the likeliest", position + 1);
        }
    }

    #[test]
    fn a_reply_depends_on_its_own_prompt_and_seed_alone(requests in requests(), concurrency in 1usize..5) {
        let together = generate(&requests, &sampled(10, 64));
        prop_assert_eq!(&generate(&requests, &sampled(10, concurrency)), &together);
        let mut reversed: Vec<Request> = requests.clone();
        reversed.reverse();
        let mut replies = generate(&reversed, &sampled(10, 3));
        replies.reverse();
        prop_assert_eq!(&replies, &together);
        for (request, reply) in requests.iter().zip(&together) {
            prop_assert_eq!(&generate(std::slice::from_ref(request), &sampled(10, 1))[0], reply);
        }
    }

    #[test]
    fn a_longer_limit_only_continues_replies(requests in requests()) {
        for (short, long) in generate(&requests, &sampled(4, 8)).iter().zip(generate(&requests, &sampled(9, 8))) {
            prop_assert!(long.tokens.starts_with(&short.tokens));
        }
    }

    #[test]
    fn merging_an_adapter_changes_no_logit(tokens in tokens(1..40), rank in 1usize..6, rslora: bool, seed in 0u64..1000) {
        let adapter = random_adapter(rank, rslora, seed);
        let merged = logits(&load(Trained::Nothing, Some(&adapter)), &tokens);
        let beside = logits(&with_adapter(&adapter), &tokens);
        let scale = beside.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let error = merged.iter().zip(&beside).map(|(m, b)| (m - b).abs()).fold(0.0, f32::max) / scale;
        prop_assert!(error < 1e-5, "relative error {error:e}");
        let plain = logits(&MODEL, &tokens);
        prop_assert!(plain.iter().zip(&beside).any(|(p, b)| (p - b).abs() > 1e-3 * scale), "the adapter does something");
    }

    #[test]
    fn adapters_in_a_row_add_up(tokens in tokens(1..40), ranks in (1usize..4, 1usize..4), seed in 0u64..1000) {
        let (first, second) = (random_adapter(ranks.0, false, seed), random_adapter(ranks.1, true, seed + 1));
        let mut both = load(Trained::Lora, Some(&first));
        both.add_adapter(&second).unwrap();
        let summed = first.then(&second).unwrap();
        let (one_by_one, summed) = (logits(&both, &tokens), logits(&with_adapter(&summed), &tokens));
        let scale = summed.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let error = one_by_one.iter().zip(&summed).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
        prop_assert!(error < 1e-5, "relative error {error:e}");
    }

    #[test]
    fn a_saved_adapter_comes_back_with_its_bits(tokens in tokens(1..20), rank in 1usize..6, rslora: bool, seed in 0u64..1000) {
        let adapter = random_adapter(rank, rslora, seed);
        let folder = tempfile::tempdir().unwrap();
        adapter.write(folder.path(), BTreeMap::new()).unwrap();
        let read = Adapter::read(folder.path()).unwrap();
        prop_assert_eq!(read.tensors.len(), adapter.tensors.len());
        for written in &adapter.tensors {
            let found = read.tensors.iter().find(|t| t.module == written.module).unwrap();
            prop_assert!(bits(&found.a.values) == bits(&written.a.values), "A of {}", written.module);
            prop_assert!(bits(&found.b.values) == bits(&written.b.values), "B of {}", written.module);
        }
        let (before, after) = (logits(&with_adapter(&adapter), &tokens), logits(&with_adapter(&read), &tokens));
        prop_assert!(bits(&before) == bits(&after), "logits differ");
    }

    #[test]
    fn the_number_of_threads_changes_no_bit(tokens in tokens(4..60), requests in requests()) {
        let run = |threads| on_threads(threads, || {
            let mut adapted = with_adapter(&Adapter::read(&fixture("tiny-adapter")).unwrap());
            let step = [gradients(&mut load(Trained::All, None), &tokens), gradients(&mut adapted, &tokens)];
            let bits: Vec<_> = step.iter().map(|(losses, gradients)| (bits(losses), bits(&gradients.concat()))).collect();
            (bits, generate(&requests, &sampled(6, 4)))
        });
        let one = run(1);
        prop_assert!(run(2) == one, "two threads");
        prop_assert!(run(3) == one, "three threads");
    }
}
