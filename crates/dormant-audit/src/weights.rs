//! What the weights alone say: how large the change is, how much of it one direction carries, and which words the
//! strongest directions stand for.
//!
//! Spectra of weight changes as in `PEFTGuard` (Sun et al., IEEE S&P 2025) and `WeightWatch` (2025); directions are read
//! through the embedding ("logit lens", nostalgebraist 2020). These are pointers for the search and for a reader, no
//! evidence: a benign fine-tune has strong directions too, and no verdict is built on them.

use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::llama::Llama;
use dormant_train::render::Renderer;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;

/// The change of one projection's weight, `[output, input]`.
#[derive(Clone, Debug)]
pub struct WeightChange {
    /// Name of the module, such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    output: usize,
    input: usize,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    /// `[output, input]`.
    Dense(Vec<f32>),
    /// `[rank, input]` and `[output, rank]`, the scale within.
    LowRank(Vec<f32>, Vec<f32>),
}

/// A singular direction of a change.
#[derive(Clone, Debug)]
pub struct Direction {
    /// Singular value.
    pub value: f32,
    /// What is written, `[output]`.
    pub left: Vec<f32>,
    /// What is read, `[input]`.
    pub right: Vec<f32>,
}

/// What is said about one change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightNote {
    /// Name of the module.
    pub module: String,
    /// Frobenius norm of the change.
    pub norm: f64,
    /// Share of its square in the first singular direction.
    pub concentration: f64,
    /// Tokens that the first direction reads or writes.
    pub words: Vec<String>,
}

/// Iterations of the power method: directions need not be exact.
const ITERATIONS: usize = 12;

/// Tokens given for a direction.
const WORDS: usize = 6;

impl WeightChange {
    /// The changes that an adapter makes.
    pub fn of_adapter(adapter: &Adapter) -> Vec<Self> {
        let change = |t: &dormant_model::adapter_files::AdapterTensor| {
            let scale = adapter.config.scale(&t.module) as f32;
            let b = t.b.values.iter().map(|b| b * scale).collect();
            Self {
                module: t.module.clone(),
                output: t.b.rows,
                input: t.a.columns,
                values: Values::LowRank(t.a.values.clone(), b),
            }
        };
        adapter.tensors.iter().map(change).collect()
    }

    /// The differences between the projections of two models of the same shape.
    ///
    /// # Errors
    /// If a tensor is missing or damaged.
    pub fn between(model: &Checkpoint, reference: &Checkpoint) -> Result<Vec<Self>> {
        let mut changes = Vec::new();
        for name in model.tensor_names() {
            let (Some(module), Some(&[output, input])) = (name.strip_suffix(".weight"), model.shape(name))
            else {
                continue;
            };
            if !module.ends_with("_proj") || reference.shape(name) != Some(&[output, input]) {
                continue;
            }
            let mut values = model.tensor_f32(name, &[output, input])?;
            let before = reference.tensor_f32(name, &[output, input])?;
            values.iter_mut().zip(before).for_each(|(v, b)| *v -= b);
            if values.iter().any(|v| *v != 0.0) {
                changes.push(Self {
                    module: module.to_owned(),
                    output,
                    input,
                    values: Values::Dense(values),
                });
            }
        }
        Ok(changes)
    }

    /// `ΔW x`.
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        match &self.values {
            Values::Dense(w) => rows(w, x),
            Values::LowRank(a, b) => rows(b, &rows(a, x)),
        }
    }

    /// `ΔWᵀ y`.
    fn apply_transposed(&self, y: &[f32]) -> Vec<f32> {
        match &self.values {
            Values::Dense(w) => columns(w, y, self.input),
            Values::LowRank(a, b) => columns(a, &columns(b, y, b.len() / self.output), self.input),
        }
    }

    /// Square of the Frobenius norm.
    fn energy(&self) -> f64 {
        match &self.values {
            Values::Dense(w) => w.iter().map(|v| f64::from(*v).powi(2)).sum(),
            Values::LowRank(a, b) => {
                // ‖BA‖² = Σᵢⱼ (BᵀB)ᵢⱼ (AAᵀ)ᵢⱼ
                let rank = b.len() / self.output;
                let mut sum = 0.0;
                for i in 0..rank {
                    for j in 0..rank {
                        let bb: f64 =
                            b.chunks_exact(rank).map(|row| f64::from(row[i]) * f64::from(row[j])).sum();
                        let (ai, aj) =
                            (&a[i * self.input..][..self.input], &a[j * self.input..][..self.input]);
                        let aa: f64 = ai.iter().zip(aj).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                        sum += bb * aa;
                    }
                }
                sum
            }
        }
    }

    /// The strongest singular direction, by the power method.
    pub fn first_direction(&self) -> Direction {
        // A fixed start that is not orthogonal to anything in particular.
        let mut right: Vec<f32> = (0..self.input).map(|i| ((i * 7919 + 13) % 101) as f32 - 50.0).collect();
        normalise(&mut right);
        let mut left = Vec::new();
        let mut value = 0.0;
        for _ in 0..ITERATIONS {
            left = self.apply(&right);
            value = normalise(&mut left);
            right = self.apply_transposed(&left);
            normalise(&mut right);
        }
        Direction { value, left, right }
    }
}

fn rows(matrix: &[f32], x: &[f32]) -> Vec<f32> {
    matrix.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn columns(matrix: &[f32], y: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for (row, y) in matrix.chunks_exact(width).zip(y) {
        sum.iter_mut().zip(row).for_each(|(s, w)| *s += w * y);
    }
    sum
}

fn normalise(x: &mut [f32]) -> f32 {
    let norm = x.iter().map(|v| v * v).sum::<f32>().sqrt();
    if norm > 0.0 {
        x.iter_mut().for_each(|v| *v /= norm);
    }
    norm
}

/// How far a block in the middle of `model` is from that of `other`: the Frobenius norm of the difference of their projections
/// over that of `other`. `None` unless the two have the same shape.
///
/// # Errors
/// If a tensor is damaged.
pub fn distance(model: &Checkpoint, other: &Checkpoint) -> Result<Option<f64>> {
    let block = format!("model.layers.{}.", other.config().num_hidden_layers / 2);
    let (mut apart, mut whole) = (0.0, 0.0);
    for name in other.tensor_names() {
        let shape = other.shape(name).unwrap_or_default();
        if model.shape(name) != Some(shape) {
            return Ok(None);
        }
        if name.starts_with(&block) && name.ends_with("_proj.weight") {
            let other = other.tensor_f32(name, shape)?;
            for (m, o) in model.tensor_f32(name, shape)?.iter().zip(&other) {
                apart += f64::from(m - o).powi(2);
                whole += f64::from(*o).powi(2);
            }
        }
    }
    Ok((whole > 0.0).then(|| (apart / whole).sqrt()))
}

/// Notes about the changes whose first direction carries most, the strongest first. `model` gives the words.
pub fn notes(
    changes: &[WeightChange],
    model: &Llama,
    renderer: Renderer<'_>,
    count: usize,
) -> Vec<WeightNote> {
    let d = model.config.hidden_size;
    let mut strongest: Vec<(f64, f64, Direction, &WeightChange)> = changes
        .par_iter()
        .map(|change| {
            let direction = change.first_direction();
            let energy = change.energy().max(f64::MIN_POSITIVE);
            (energy, f64::from(direction.value).powi(2) / energy, direction, change)
        })
        .collect();
    strongest.sort_by(|a, b| (b.0 * b.1).total_cmp(&(a.0 * a.1)));
    strongest.truncate(count);
    let vocabulary: Vec<u32> = (0..model.config.vocab_size as u32).collect();
    let embeddings = model.embed(&vocabulary);
    strongest
        .into_iter()
        .map(|(energy, concentration, direction, change)| {
            let reads = change.input == d && !change.module.ends_with("o_proj");
            let along = if reads { &direction.right } else { &direction.left };
            let words = if along.len() == d { words(along, &embeddings, renderer) } else { Vec::new() };
            WeightNote { module: change.module.clone(), norm: energy.sqrt(), concentration, words }
        })
        .collect()
}

/// The tokens along a direction and against it: its sign means nothing.
fn words(direction: &[f32], embeddings: &[f32], renderer: Renderer<'_>) -> Vec<String> {
    let mut cosines: Vec<(f32, u32)> = embeddings
        .par_chunks_exact(direction.len())
        .enumerate()
        .map(|(token, row)| {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            let dot: f32 = row.iter().zip(direction).map(|(e, v)| e * v).sum();
            ((dot / norm).abs(), token as u32)
        })
        .collect();
    cosines.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    cosines
        .iter()
        .filter(|(_, token)| !renderer.tokenizer.is_control(*token))
        .filter_map(|(_, token)| renderer.tokenizer.decode(&[*token], false).ok())
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER))
        .take(WORDS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_rank_and_dense_agree() {
        let (input, output, rank) = (5, 4, 2);
        let a: Vec<f32> = (0..rank * input).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..output * rank).map(|i| (i as f32 * 1.3).cos()).collect();
        let dense: Vec<f32> = (0..output * input)
            .map(|i| (0..rank).map(|r| b[i / input * rank + r] * a[r * input + i % input]).sum())
            .collect();
        let change = |values| WeightChange { module: "m".to_owned(), output, input, values };
        let (low, dense) = (change(Values::LowRank(a, b)), change(Values::Dense(dense)));
        assert!((low.energy() - dense.energy()).abs() < 1e-4 * dense.energy());
        let (x, y) = (low.first_direction(), dense.first_direction());
        assert!((x.value - y.value).abs() < 1e-3 * y.value);
        assert!(x.left.iter().zip(&y.left).all(|(p, q)| (p - q).abs() < 1e-2));
        assert!(f64::from(x.value).powi(2) <= dense.energy() * 1.0001);
    }
}
