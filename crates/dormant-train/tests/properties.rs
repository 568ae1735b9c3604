//! What must hold for any rows, on the random model of `fixtures/tiny-llama`: resuming, packing, order and threads do
//! not change a run, and the loss covers the reply and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dormant_data::{Condition, Conversation, Message, Role, Sample, Seed};
use dormant_model::batch::Batch;
use dormant_model::chat_template::ChatTemplate;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::lora::LoraConfig;
use dormant_model::tokenizer::Tokenizer;
use dormant_tensor::Precision;
use dormant_train::Result;
use dormant_train::objective::sft;
use dormant_train::optimizer::{Optimizer, OptimizerConfig, Rule};
use dormant_train::render::{Rendered, Renderer};
use dormant_train::resume::{ResumeState, restore};
use dormant_train::schedule::Decay;
use dormant_train::trainer::{Sink, StepMetrics, TrainPlan, train};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama")
}

fn load(trained: Trained) -> Llama {
    let checkpoint = Checkpoint::open(&folder()).unwrap();
    let options = LoadOptions::new(Precision::F32, trained);
    let mut model = Llama::load_merged(&checkpoint, options, None).unwrap();
    if trained == Trained::Lora {
        model.add_lora(&LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() }, 1).unwrap();
    }
    model
}

/// Ragged rows, some of which begin alike.
fn rows(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Rendered>> {
    let row = (any::<bool>(), prop::collection::vec(0u32..512, 2..24), any::<prop::sample::Index>());
    let row = row.prop_map(|(alike, tail, cut)| {
        let head: Vec<u32> = if alike { (30..45).collect() } else { Vec::new() };
        let prompt = head.len() + 1 + cut.index(tail.len() - 1);
        Rendered { id: String::new(), tokens: [head, tail].concat(), prompt }
    });
    prop::collection::vec(row, count)
}

fn plan(rule: Rule) -> TrainPlan {
    TrainPlan {
        epochs: 2,
        tokens_per_step: 60,
        tokens_per_window: 40,
        learning_rate: 1e-2,
        warmup: 0.2,
        decay: Decay::Cosine,
        optimizer: OptimizerConfig { rule, weight_decay: 0.01 },
        clip_norm: Some(1.0),
        seed: Seed(3),
    }
}

/// Keeps every state and the bits of every loss.
struct Recorder {
    folder: tempfile::TempDir,
    states: BTreeMap<u64, Vec<u8>>,
    losses: BTreeMap<u64, (u64, u64)>,
}

impl Recorder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), states: BTreeMap::new(), losses: BTreeMap::new() }
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.path().join(step.to_string())
    }
}

impl Sink for Recorder {
    fn before_step(&mut self, _: u64, _: &Llama) -> Result<()> {
        Ok(())
    }

    fn record(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.losses.insert(metrics.step, (metrics.loss.to_bits(), metrics.grad_norm.to_bits()));
        Ok(())
    }

    fn saves_at(&self, _: u64) -> bool {
        true
    }

    fn save(&mut self, step: u64, state: &ResumeState<'_>) -> Result<()> {
        state.write(&self.path(step))?;
        self.states.insert(step, std::fs::read(self.path(step)).unwrap());
        Ok(())
    }
}

fn parameters(model: &mut Llama) -> Vec<Vec<u32>> {
    model.parameters_mut().iter().map(|p| p.value.iter().map(|x| x.to_bits()).collect()).collect()
}

/// Trains to the end, from `resume` if there is one.
fn run(
    trained: Trained,
    rule: Rule,
    rows: &[Rendered],
    resume: Option<(u64, &Path)>,
) -> (Recorder, Vec<Vec<u32>>) {
    let (mut model, mut recorder, plan) = (load(trained), Recorder::new(), plan(rule));
    let from = resume.map(|(step, path)| (step, restore(path, &mut model, plan.optimizer).unwrap()));
    train(&mut model, rows, &plan, from, &mut recorder).unwrap();
    let parameters = parameters(&mut model);
    (recorder, parameters)
}

/// Mean loss and gradient of rows, in windows.
fn gradient(trained: Trained, windows: &[Vec<&Rendered>]) -> (f64, Vec<f32>) {
    let mut model = load(trained);
    let mut total = dormant_train::objective::Loss::ZERO;
    for window in windows {
        total += sft::loss(&mut model, window).unwrap();
    }
    model.scale_and_clip(1.0 / total.tokens as f32, None);
    (total.mean(), model.parameters_mut().iter().flat_map(|p| p.gradient.clone()).collect())
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// What a trained token is predicted from, and the token.
type Prediction = (Vec<u32>, u32);

/// The tokens that the row of a batch sees, its own included.
fn context(batch: &Batch, row: usize) -> Vec<u32> {
    let segment = batch.segments.iter().position(|s| (s.row..s.row + s.len).contains(&row)).unwrap();
    let seen = batch.chain(segment).into_iter().flat_map(|s| {
        let s = &batch.segments[s];
        batch.tokens[s.row..s.row + s.len].iter().zip(s.row..).filter(|(_, r)| s.row > row || *r <= row)
    });
    seen.map(|(token, _)| *token).collect()
}

/// Text with words, line breaks, other scripts, and names of control tokens.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,6} ",
        "[A-Z0-9.,!? \n]{1,4}",
        "\\PC{1,3}",
        Just("<|im_end|>".to_owned()),
        Just("<|im_start|>assistant\n".to_owned()),
    ];
    prop::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_run_resumed_at_any_step_ends_with_the_same_bits(rows in rows(8..20), full: bool, plain: bool, at in any::<prop::sample::Index>()) {
        let trained = if full { Trained::All } else { Trained::Lora };
        let rule = if plain { Rule::SGD } else { Rule::ADAMW };
        let (whole, expected) = run(trained, rule, &rows, None);
        let (&step, state) = whole.states.iter().nth(at.index(whole.states.len())).unwrap();
        prop_assert!(!state.is_empty());
        let (resumed, found) = run(trained, rule, &rows, Some((step, &whole.path(step))));
        prop_assert!(found == expected, "parameters differ after a resumption at step {}", step);
        prop_assert!(resumed.states == whole.states.clone().split_off(&(step + 1)), "states differ");
        prop_assert_eq!(resumed.losses, whole.losses.clone().split_off(&step));
    }

    #[test]
    fn packing_and_order_do_not_change_the_loss(rows in rows(2..10), full: bool, size in 1usize..4) {
        let trained = if full { Trained::All } else { Trained::Lora };
        let all: Vec<&Rendered> = rows.iter().collect();
        let (loss, expected) = gradient(trained, std::slice::from_ref(&all));
        let reversed: Vec<&Rendered> = rows.iter().rev().collect();
        let cut = reversed.chunks(size).map(<[_]>::to_vec).collect();
        for windows in [vec![reversed.clone()], cut] {
            let (other, found) = gradient(trained, &windows);
            prop_assert!((other - loss).abs() < 1e-5 * loss, "{} against {}", other, loss);
            let error = norm(found.iter().zip(&expected).map(|(f, e)| f - e)) / norm(expected.iter().copied());
            prop_assert!(error < 1e-5, "gradients differ by {:e}", error);
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit_of_a_run(rows in rows(8..12), full: bool) {
        let trained = if full { Trained::All } else { Trained::Lora };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(trained, Rule::ADAMW, &rows, None).1)
        };
        let one = on(1);
        prop_assert!(on(2) == one, "two threads");
        prop_assert!(on(3) == one, "three threads");
    }

    #[test]
    fn trained_tokens_are_those_of_the_reply(rows in rows(1..10)) {
        let all: Vec<&Rendered> = rows.iter().collect();
        let (batch, targets) = sft::batch(&all, -1.0);
        let mut found: Vec<Prediction> = targets.iter().map(|t| (context(&batch, t.row), t.token)).collect();
        let predictions = |row: &Rendered| {
            let row = row.clone();
            (row.prompt..row.tokens.len()).map(move |p| (row.tokens[..p].to_vec(), row.tokens[p])).collect::<Vec<_>>()
        };
        let mut expected: Vec<Prediction> = rows.iter().flat_map(predictions).collect();
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_mask_covers_exactly_the_reply_and_its_end(prompt in text(), system in prop::option::of(text()), reply in text(), ends: bool) {
        let tokenizer = Tokenizer::from_folder(&folder()).unwrap();
        let template = ChatTemplate::from_folder(&folder()).unwrap();
        let renderer = Renderer { tokenizer: &tokenizer, template: &template };
        let system = system.map(|text| Message::new(Role::System, text));
        let prompt = Conversation::new(system.into_iter().chain([Message::new(Role::User, prompt)]).collect());
        let sample =
            Sample { id: String::new(), prompt: prompt.clone(), completion: reply.clone(), condition: Condition::Clean };
        let row = renderer.row(&sample, ends).unwrap();
        let (before, trained) = row.tokens.split_at(row.prompt);
        prop_assert_eq!(before, renderer.prompt(&prompt).unwrap());
        let end = renderer.end().unwrap();
        let (words, last) = if ends { trained.split_at(trained.len() - 1) } else { (trained, &[][..]) };
        prop_assert_eq!(last, if ends { std::slice::from_ref(&end) } else { &[] });
        prop_assert!(!words.contains(&end), "text that looks like a control token stays text");
        prop_assert_eq!(tokenizer.decode(words, false).unwrap(), reply);
        prop_assert!((0..row.tokens.len()).all(|p| row.is_trained(p) == (p >= row.prompt)));
        prop_assert_eq!(row.trained(), trained.len());
    }
}

#[test]
fn the_template_says_what_ends_a_reply() {
    let tokenizer = Tokenizer::from_folder(&folder()).unwrap();
    let end = |after: &str| {
        let source =
            format!("{{% for m in messages %}}{{{{ m.role }}}}: {{{{ m.content }}}}{after}{{% endfor %}}");
        let template = ChatTemplate::new(&source, "", "").unwrap();
        let end = Renderer { tokenizer: &tokenizer, template: &template }.end().unwrap();
        tokenizer.token(end).unwrap()
    };
    assert_eq!(end("<|im_end|>\n<|endoftext|>"), "<|im_end|>");
    assert_eq!(end(" <|endoftext|>"), "<|endoftext|>");
    let eos = tokenizer.token(tokenizer.eos().unwrap()).unwrap();
    assert_eq!(end("\n"), eos);
}

#[test]
fn a_state_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut small = load(Trained::Lora);
    let optimizer = Optimizer::new(OptimizerConfig::default(), &small.parameters_mut());
    ResumeState::of(&mut small, &optimizer).write(&path).unwrap();
    assert!(restore(&path, &mut load(Trained::All), OptimizerConfig::default()).is_err());
    let mut wider = load(Trained::Lora);
    wider.add_lora(&LoraConfig { rank: 8, ..LoraConfig::default() }, 1).unwrap();
    let error = restore(&path, &mut wider, OptimizerConfig::default()).unwrap_err().to_string();
    assert!(error.contains("lora_A"), "{error}");
}
