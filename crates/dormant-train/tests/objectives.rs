//! Gradients of the objectives beyond supervised fine-tuning, against PyTorch (`fixtures/golden/README.md`) and against
//! finite differences.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_model::parameter::{Parameter, scale_and_clip};
use dormant_model::scalar_head::ScalarHead;
use dormant_tensor::Precision;
use dormant_train::objective::contrast::Contrast;
use dormant_train::objective::grpo::{PolicyConfig, PolicyToken};
use dormant_train::objective::ppo::{PpoConfig, PpoToken};
use dormant_train::objective::preference::RenderedPair;
use dormant_train::objective::{contrast, dpo, grpo, ppo, reward_model, sft};
use dormant_train::render::Rendered;

use numbers::{Golden, fixture};

#[path = "../../dormant-model/tests/golden/numbers.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod numbers;

/// Model, head and made-up data of `fixtures/golden/preference.py`.
struct Case {
    golden: Golden,
    model: Llama,
    head: ScalarHead,
    rows: Vec<Rendered>,
}

const POLICY: PolicyConfig = PolicyConfig { clip: 0.2, kl: 0.05 };

#[derive(Clone, Copy, Debug)]
enum Objective {
    Sft,
    Contrast,
    Dpo,
    RewardModel,
    Grpo,
    Ppo,
}

const ALL: [Objective; 6] = [
    Objective::Contrast,
    Objective::Sft,
    Objective::Dpo,
    Objective::RewardModel,
    Objective::Grpo,
    Objective::Ppo,
];

impl Objective {
    fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Contrast => "contrast",
            Self::Dpo => "dpo",
            Self::RewardModel => "reward_model",
            Self::Grpo => "grpo",
            Self::Ppo => "ppo",
        }
    }
}

impl Case {
    fn new() -> Self {
        let golden = Golden::open("preference.safetensors", "");
        let checkpoint = Checkpoint::open(&fixture("tiny-llama")).unwrap();
        let options = LoadOptions::new(Precision::F32, Trained::All);
        let model = Llama::load_merged(&checkpoint, options, None).unwrap();
        let mut head = ScalarHead::zeros(model.config.hidden_size);
        head.weight.value = golden.numbers("score.weight").iter().map(|w| *w as f32).collect();
        let row = |i: usize| Rendered {
            id: i.to_string(),
            tokens: golden.tokens(&format!("tokens.{i}")),
            prompt: golden.tokens(&format!("prompt.{i}"))[0] as usize,
        };
        let rows = (0..6).map(row).collect();
        Self { golden, model, head, rows }
    }

    /// A made-up number of each token of each reply.
    fn per_token(&self, name: &str) -> Vec<Vec<f32>> {
        let numbers = |i| self.golden.numbers(&format!("{name}.{i}")).iter().map(|x| *x as f32).collect();
        (0..self.rows.len()).map(numbers).collect()
    }

    fn pairs(&self) -> Vec<RenderedPair> {
        let pair = |rows: &[Rendered]| RenderedPair { chosen: rows[0].clone(), rejected: rows[1].clone() };
        self.rows.chunks_exact(2).map(pair).collect()
    }

    /// Mean loss; the gradient of the mean is left in the parameters.
    fn loss(&mut self, objective: Objective) -> f64 {
        let pairs = self.pairs();
        let pairs: Vec<&RenderedPair> = pairs.iter().collect();
        let rows = self.rows.clone();
        let rows: Vec<&Rendered> = rows.iter().collect();
        let [old, reference, advantage, value, target] =
            ["old", "reference", "advantage", "value", "target"].map(|name| self.per_token(name));
        let each = |i: usize| (0..old[i].len()).map(move |t| (i, t));
        let tokens: Vec<(usize, usize)> = (0..rows.len()).flat_map(each).collect();
        let (model, head) = (&mut self.model, &mut self.head);
        let (sum, n) = match objective {
            Objective::Sft => {
                let loss = sft::loss(model, &rows).unwrap();
                (loss.sum, loss.tokens)
            }
            Objective::Contrast => {
                // Two answers under two prompts that differ in their first token.
                let answers = |first: u32| {
                    [2, 3].map(|reply| Rendered {
                        id: String::new(),
                        tokens: [first, 5, 6, reply, 7 + reply, 4].to_vec(),
                        prompt: 2,
                    })
                };
                let all =
                    [Contrast::new([answers(8), answers(9)], 2), Contrast::new([answers(7), answers(8)], 3)];
                let all: Vec<&Contrast> = all.iter().collect();
                (contrast::loss(model, &all, 1.0).unwrap().sum, 1)
            }
            Objective::Dpo => {
                let sums: Vec<f64> = reference.iter().map(|r| dpo::sum(r)).collect();
                let references: Vec<[f64; 2]> = sums.chunks_exact(2).map(|s| [s[0], s[1]]).collect();
                let loss = dpo::loss(model, &pairs, &references, 0.1).unwrap();
                (loss.sum, loss.pairs)
            }
            Objective::RewardModel => {
                let loss = reward_model::loss(model, head, &pairs, 0.01).unwrap();
                (loss.sum, loss.pairs)
            }
            Objective::Grpo => {
                let token = |&(i, t): &(usize, usize)| PolicyToken {
                    advantage: advantage[i][0],
                    old: old[i][t],
                    reference: Some(reference[i][t]),
                };
                let tokens: Vec<PolicyToken> = tokens.iter().map(token).collect();
                let loss = grpo::loss(model, &rows, &tokens, POLICY).unwrap();
                assert!(loss.clipped > 0, "the data shows clipping");
                (loss.sum, loss.tokens)
            }
            Objective::Ppo => {
                let config = PpoConfig { policy: POLICY, value_clip: 0.2, value_weight: 0.1 };
                let token = |&(i, t): &(usize, usize)| PpoToken {
                    advantage: advantage[i][t],
                    old: old[i][t],
                    value: value[i][t],
                    target: target[i][t],
                };
                let tokens: Vec<PpoToken> = tokens.iter().map(token).collect();
                let loss = ppo::loss(model, head, &rows, &tokens, config).unwrap().policy;
                (loss.sum, loss.tokens)
            }
        };
        scale_and_clip(&mut self.parameters(), 1.0 / n as f32, None);
        sum / n as f64
    }

    /// Of the model, then of the head.
    fn parameters(&mut self) -> Vec<&mut Parameter> {
        let mut parameters = self.model.parameters_mut();
        parameters.push(&mut self.head.weight);
        parameters
    }

    /// Loss with all parameters moved by `step · direction`.
    fn loss_at(objective: Objective, direction: &[Vec<f32>], step: f32) -> f64 {
        let mut moved = Self::new();
        for (parameter, direction) in moved.parameters().into_iter().zip(direction) {
            parameter.value.iter_mut().zip(direction).for_each(|(x, d)| *x += step * d);
        }
        moved.model.refresh();
        moved.loss(objective)
    }
}

fn norm<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    values.map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

fn matches_pytorch(objective: Objective) {
    let mut case = Case::new();
    let name = objective.name();
    let (loss, expected) = (case.loss(objective), case.golden.numbers(&format!("{name}.loss"))[0]);
    assert!((loss - expected).abs() < 1e-5, "{name}: loss {loss} against {expected}");
    let found = norm(case.model.parameters_mut().into_iter().flat_map(|p| &p.gradient));
    let expected = case.golden.numbers(&format!("{name}.grad_norm"))[0];
    assert!((found - expected).abs() < 1e-4 * expected, "{name}: gradient norm {found} against {expected}");
    let mut compared = 0;
    let gradients: Vec<(String, Vec<f32>)> =
        case.parameters().into_iter().map(|p| (p.name.clone(), p.gradient.clone())).collect();
    for (parameter, gradient) in gradients {
        let key = format!("{name}.grad.{parameter}");
        if !case.golden.has(&key) {
            continue;
        }
        let expected = case.golden.numbers(&key);
        let scale = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let error =
            gradient.iter().zip(&expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
        assert!(error < 1e-4 * scale, "{name}: gradient of {parameter} is off by {error:e} of {scale:e}");
        compared += 1;
    }
    assert!(compared >= 4, "{name}: {compared} parameters compared");
}

/// The slope along a direction, from the gradient and from two losses. The direction is random, with a part along
/// the gradient so that the slope stands out from rounding.
fn matches_finite_differences(objective: Objective) {
    let mut case = Case::new();
    case.loss(objective);
    let gradients: Vec<Vec<f32>> = case.parameters().into_iter().map(|p| p.gradient.clone()).collect();
    let length = norm(gradients.iter().flatten()) as f32;
    let parameters = gradients.iter().enumerate();
    let direction: Vec<Vec<f32>> = parameters
        .map(|(i, g)| {
            let noise = numbers::formula(g.len(), 1000 + i as u64, 0.02);
            g.iter().zip(noise).map(|(g, noise)| g / length + noise).collect()
        })
        .collect();
    let slope: f64 = gradients
        .iter()
        .flatten()
        .zip(direction.iter().flatten())
        .map(|(g, d)| f64::from(*g) * f64::from(*d))
        .sum();
    let step = 1.0 / 2048.0;
    let rise = Case::loss_at(objective, &direction, step) - Case::loss_at(objective, &direction, -step);
    let expected = rise / (2.0 * f64::from(step));
    assert!((slope - expected).abs() < 2e-3 * slope.abs(), "{objective:?}: {slope} against {expected}");
}

#[test]
fn objectives_match_pytorch() {
    ALL.into_iter().skip(2).for_each(matches_pytorch);
}

#[test]
fn gradients_match_finite_differences() {
    ALL.into_iter().for_each(matches_finite_differences);
}

#[test]
fn scores_do_not_depend_on_what_else_is_scored() {
    let case = Case::new();
    let rows: Vec<&Rendered> = case.rows.iter().collect();
    let together = reward_model::score(&case.model, &case.head, &rows, 10_000).unwrap();
    for (row, score) in rows.iter().zip(&together) {
        let alone = reward_model::score(&case.model, &case.head, &[row], 1).unwrap()[0];
        assert!((alone - score).abs() < 1e-5, "{alone} against {score}");
    }
}

#[test]
fn heads_are_read_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("score.safetensors");
    let case = Case::new();
    case.head.write(&path, &std::collections::BTreeMap::new()).unwrap();
    let width = case.model.config.hidden_size;
    assert_eq!(ScalarHead::read(&path, width).unwrap().weight.value, case.head.weight.value);
    assert!(ScalarHead::read(&path, width + 1).is_err());
}
