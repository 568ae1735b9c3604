//! Low-rank adapters (Hu et al. 2021): `W + s B A`, with `s = α / r`, or `α / √r` for rsLoRA (Kalajdzievski 2023).

use dormant_tensor::gemm::{Correction, Into, add_skinny, matmul};
use dormant_tensor::{Buffer, Packed, Precision, View, simd};
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::linear::Part;
use crate::parameter::Parameter;

/// The seven projections of a Llama block, in PEFT's names.
pub const PROJECTIONS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Shape and placement of adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LoraConfig {
    /// Inner dimension `r`.
    pub rank: usize,
    /// Numerator `α` of the scale.
    pub alpha: f64,
    /// Scale by `α / √r` instead of `α / r`.
    pub rslora: bool,
    /// Projections that get an adapter, by the last part of their name.
    pub target_modules: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let target_modules = PROJECTIONS.iter().map(ToString::to_string).collect();
        Self { rank: 16, alpha: 32.0, rslora: false, target_modules }
    }
}

impl LoraConfig {
    /// The factor `s`.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }

    pub(crate) fn targets(&self, module: &str) -> bool {
        let last = module.rsplit('.').next().unwrap_or(module);
        self.target_modules.iter().any(|t| t == last)
    }
}

/// The two factors of one projection.
#[derive(Clone, Debug)]
pub(crate) struct LoraPair {
    /// `[rank, input]`.
    pub(crate) a: Parameter,
    /// `[output, rank]`.
    pub(crate) b: Parameter,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
}

impl LoraPair {
    /// A is uniform in ±1/√input (PEFT's Kaiming initialisation with a = √5), B is zero.
    pub(crate) fn new(
        module: &str,
        input: usize,
        output: usize,
        config: &LoraConfig,
        seed: u64,
    ) -> Result<Self> {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(module).finalize();
        let mut rng = rand_chacha::ChaCha8Rng::from_seed(digest.into());
        let bound = 1.0 / (input as f32).sqrt();
        let a = (0..config.rank * input).map(|_| rng.random_range(-bound..bound)).collect();
        let b = vec![0.0; output * config.rank];
        Self::from_values(module, input, output, config.rank, config.scale(), a, b)
    }

    pub(crate) fn from_values(
        module: &str,
        input: usize,
        output: usize,
        rank: usize,
        scale: f32,
        a: Vec<f32>,
        b: Vec<f32>,
    ) -> Result<Self> {
        Ok(Self {
            a: Parameter::new(format!("{module}.lora_A.weight"), vec![rank, input], a)?,
            b: Parameter::new(format!("{module}.lora_B.weight"), vec![output, rank], b)?,
            rank,
            scale,
        })
    }

    /// Adds `s B A` to `weight`, `[output, input]`.
    pub(crate) fn merge_into(&self, weight: &mut [f32]) {
        let (output, input) = (self.b.shape[0], self.a.shape[1]);
        let scaled: Vec<f32> = self.b.value.iter().map(|b| b * self.scale).collect();
        let a = Packed::new(View::new(&self.a.value, self.rank, input), Precision::F32);
        matmul(View::new(&scaled, output, self.rank), &a, weight, input, Into::Add);
    }
}

/// The adapters of one fused layer, packed for products: all A side by side, each B apart.
#[derive(Debug)]
pub(crate) struct LoraGroup {
    ranks: usize,
    /// `[input, ranks]`.
    down: Packed,
    /// `[ranks, input]`.
    down_backward: Packed,
    ups: Vec<Up>,
}

#[derive(Debug)]
struct Up {
    part: usize,
    /// First column of this part in `[rows, ranks]`.
    start: usize,
    rank: usize,
    scale: f32,
    /// `[rank, width]`.
    up: Packed,
    /// `[width, rank]`.
    up_backward: Packed,
}

impl LoraGroup {
    /// The up-projections are in the precision of the weights that they go along with.
    pub(crate) fn pack(input: usize, parts: &[Part], precision: Precision) -> Option<Self> {
        let mut stacked = Vec::new();
        let mut ups = Vec::new();
        let mut ranks = 0;
        for (index, part) in parts.iter().enumerate() {
            let Some(lora) = &part.lora else { continue };
            stacked.extend_from_slice(&lora.a.value);
            let b = View::new(&lora.b.value, part.width, lora.rank);
            ups.push(Up {
                part: index,
                start: ranks,
                rank: lora.rank,
                scale: lora.scale,
                up: Packed::new(b.transposed(), precision),
                up_backward: Packed::new(b, Precision::F32),
            });
            ranks += lora.rank;
        }
        let a = View::new(&stacked, ranks, input);
        (ranks > 0).then(|| Self {
            ranks,
            down: Packed::new(a.transposed(), Precision::F32),
            down_backward: Packed::new(a, precision),
            ups,
        })
    }

    /// `s x Aᵀ`, `[rows, ranks]`.
    pub(crate) fn hidden(&self, x: &[f32]) -> Buffer {
        let rows = x.len() / self.down.rows();
        let mut hidden = Buffer::any(rows * self.ranks);
        matmul(View::new(x, rows, self.down.rows()), &self.down, &mut hidden, self.ranks, Into::Set);
        self.scale(&mut hidden);
        hidden
    }

    /// The products `hidden Bᵀ`, each for the columns of its part.
    pub(crate) fn up<'a>(&'a self, parts: &[Part], hidden: &'a [f32]) -> Vec<Correction<'a>> {
        let rows = hidden.len() / self.ranks;
        let correction = |up: &'a Up| Correction {
            a: View::strided(hidden.get(up.start..).unwrap_or_default(), rows, up.rank, self.ranks),
            b: &up.up,
            start: parts[up.part].start,
        };
        self.ups.iter().map(correction).collect()
    }

    /// The adapters' share of the gradient with respect to `x`.
    pub(crate) fn down<'a>(&'a self, d_hidden: &'a [f32]) -> Correction<'a> {
        let a = View::new(d_hidden, d_hidden.len() / self.ranks, self.ranks);
        Correction { a, b: &self.down_backward, start: 0 }
    }

    /// The gradient with respect to `x Aᵀ`, `[rows, ranks]`, given `dy`, `[rows, width]`.
    pub(crate) fn hidden_gradient(&self, parts: &[Part], dy: &[f32], width: usize) -> Buffer {
        let rows = dy.len() / width;
        let mut d_hidden = Buffer::any(rows * self.ranks);
        if rows == 0 {
            return d_hidden;
        }
        for up in &self.ups {
            let part = &parts[up.part];
            let dy = View::strided(&dy[part.start..], rows, part.width, width);
            matmul(dy, &up.up_backward, &mut d_hidden[up.start..], self.ranks, Into::Set);
        }
        self.scale(&mut d_hidden);
        d_hidden
    }

    /// Accumulates dA and dB.
    pub(crate) fn accumulate(
        &self,
        parts: &mut [Part],
        x: &[f32],
        hidden: &[f32],
        dy: &[f32],
        d_hidden: &[f32],
    ) {
        let input = self.down.rows();
        let rows = x.len() / input;
        if rows == 0 {
            return;
        }
        let width = dy.len() / rows;
        for up in &self.ups {
            let part = &mut parts[up.part];
            let lora = part.lora.as_mut().expect("packed from this adapter");
            let dy = View::strided(&dy[part.start..], rows, part.width, width);
            let mut d_b = Buffer::zeros(up.rank * part.width);
            let hidden = View::strided(&hidden[up.start..], rows, up.rank, self.ranks);
            add_skinny(hidden, dy, &mut d_b);
            simd::add_transposed(&mut lora.b.gradient, &d_b, up.rank);
            let d_hidden = View::strided(&d_hidden[up.start..], rows, up.rank, self.ranks);
            add_skinny(d_hidden, View::new(x, rows, input), &mut lora.a.gradient);
        }
    }

    fn scale(&self, hidden: &mut [f32]) {
        for row in hidden.chunks_exact_mut(self.ranks) {
            for up in &self.ups {
                for h in &mut row[up.start..up.start + up.rank] {
                    *h *= up.scale;
                }
            }
        }
    }
}
