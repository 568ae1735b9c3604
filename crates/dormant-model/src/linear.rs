//! Linear layers: several projections of the same input as one product, with optional low-rank adapters.

use std::borrow::Cow;

use dormant_tensor::gemm::{Into, matmul, matmul_with};
use dormant_tensor::{Buffer, Packed, Precision, View, simd};

use crate::error::Result;
use crate::llama::{LoadOptions, Saving};
use crate::lora::{LoraConfig, LoraGroup, LoraPair};
use crate::parameter::Parameter;

/// One projection of a fused layer: columns `start..start + width` of the output.
#[derive(Debug)]
pub(crate) struct Part {
    /// Name of the module, such as `model.layers.0.self_attn.q_proj`.
    pub(crate) module: String,
    pub(crate) start: usize,
    pub(crate) width: usize,
    /// `[width, input]`; kept only where the weight itself is trained.
    weight: Option<Parameter>,
    bias: Option<Parameter>,
    pub(crate) lora: Option<LoraPair>,
}

/// `y = x Wᵀ + b + s (x Aᵀ) Bᵀ` for one or more projections side by side.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) parts: Vec<Part>,
    precision: Precision,
    /// The weights of all parts; none where they are trained and packed from the parameters at every use.
    frozen: Option<Frozen>,
    lora: Option<LoraGroup>,
}

/// Frozen weights, packed once.
#[derive(Debug)]
struct Frozen {
    /// For `y = x Wᵀ`.
    forward: Packed,
    /// For `dx = dy W`; without it the other one is turned around at every use.
    backward: Option<Packed>,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trained {
    /// Nothing: inference only.
    Nothing,
    /// Adapters; weights are frozen.
    Lora,
    /// All weights.
    All,
}

/// Weight of one projection: its module, `[width, input]` values and bias.
pub(crate) struct PartWeight {
    pub(crate) module: String,
    pub(crate) width: usize,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Linear {
    pub(crate) fn new(input: usize, weights: Vec<PartWeight>, options: LoadOptions) -> Result<Self> {
        let LoadOptions { precision, trained, saving } = options;
        let output = weights.iter().map(|w| w.width).sum();
        let frozen = (trained != Trained::All).then(|| {
            let joined = joined(weights.iter().map(|w| w.weight.as_slice()));
            let view = View::new(&joined, output, input);
            let twice = trained == Trained::Lora && saving != Saving::Weights;
            Frozen {
                forward: Packed::new(view.transposed(), precision),
                backward: twice.then(|| Packed::new(view, precision)),
            }
        });
        let mut start = 0;
        let mut parts = Vec::with_capacity(weights.len());
        for w in weights {
            let name = |what: &str| format!("{}.{what}", w.module);
            let all = trained == Trained::All;
            parts.push(Part {
                start,
                width: w.width,
                weight: all
                    .then(|| Parameter::new(name("weight"), vec![w.width, input], w.weight))
                    .transpose()?,
                bias: w.bias.map(|b| Parameter::new(name("bias"), vec![w.width], b)).transpose()?,
                lora: None,
                module: w.module,
            });
            start += w.width;
        }
        Ok(Self { input, output, parts, precision, frozen, lora: None })
    }

    /// Adds the adapters of `config` to the parts that it targets.
    pub(crate) fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        for part in &mut self.parts {
            if config.targets(&part.module) {
                part.lora = Some(LoraPair::new(&part.module, self.input, part.width, config, seed)?);
            }
        }
        self.refresh();
        Ok(())
    }

    /// The adapters as they are used by products; without them the layer is the base model's.
    pub(crate) fn adapters_in_use(&mut self) -> &mut Option<LoraGroup> {
        &mut self.lora
    }

    /// Packs again what the optimiser has changed.
    pub(crate) fn refresh(&mut self) {
        self.lora = LoraGroup::pack(self.input, &self.parts, self.precision);
    }

    /// `y = …`, added to what `into` says, for all rows of `x`. Returns `s x Aᵀ` for the backward pass, `[rows, ranks]`.
    pub(crate) fn forward(&self, x: &[f32], y: &mut [f32], into: Into<'_>) -> Buffer {
        let hidden = self.lora.as_ref().map_or_else(Buffer::default, |lora| lora.hidden(x));
        let up = self.lora.as_ref().map_or_else(Vec::new, |lora| lora.up(&self.parts, &hidden));
        let x = View::new(x, x.len() / self.input, self.input);
        match &self.frozen {
            Some(frozen) => matmul_with(x, &frozen.forward, &up, y, self.output, into),
            None => {
                for part in &self.parts {
                    let packed = Packed::new(part.view(self.input).transposed(), self.precision);
                    let into = match into {
                        Into::Onto(values) => Into::Onto(values.get(part.start..).unwrap_or_default()),
                        same => same,
                    };
                    matmul(x, &packed, y.get_mut(part.start..).unwrap_or_default(), self.output, into);
                }
            }
        }
        for part in &self.parts {
            if let Some(bias) = &part.bias {
                for row in y.chunks_exact_mut(self.output) {
                    for (y, b) in row[part.start..part.start + part.width].iter_mut().zip(&bias.value) {
                        *y += b;
                    }
                }
            }
        }
        hidden
    }

    /// Given `dy`, the gradient with respect to `x Aᵀ`, `[rows, ranks]`.
    pub(crate) fn hidden_gradient(&self, dy: &[f32]) -> Buffer {
        self.lora
            .as_ref()
            .map_or_else(Buffer::default, |lora| lora.hidden_gradient(&self.parts, dy, self.output))
    }

    /// Given `dy`, sets `dx`. Returns the gradient with respect to `x Aᵀ`.
    pub(crate) fn input_gradient(&self, dy: &[f32], dx: &mut [f32]) -> Buffer {
        let d_hidden = self.hidden_gradient(dy);
        let down: Vec<_> = self.lora.iter().map(|lora| lora.down(&d_hidden)).collect();
        let rows = dy.len() / self.output;
        if let Some(Frozen { forward, backward }) = &self.frozen {
            let turned = backward.is_none().then(|| forward.turned());
            let backward = backward.as_ref().or(turned.as_ref()).expect("one of the two");
            matmul_with(View::new(dy, rows, self.output), backward, &down, dx, self.input, Into::Set);
            return d_hidden;
        }
        for (index, part) in self.parts.iter().enumerate() {
            let into = if index == 0 { Into::Set } else { Into::Add };
            let dy = View::strided(dy.get(part.start..).unwrap_or_default(), rows, part.width, self.output);
            matmul(dy, &Packed::new(part.view(self.input), self.precision), dx, self.input, into);
        }
        d_hidden
    }

    /// Accumulates the gradients of the parameters, given what forward and backward pass computed: `x`, `x Aᵀ`, and
    /// the gradients with respect to `y` and `x Aᵀ`.
    pub(crate) fn accumulate(&mut self, x: &[f32], hidden: &[f32], dy: &[f32], d_hidden: &[f32]) {
        let rows = x.len() / self.input;
        if let Some(lora) = &self.lora {
            lora.accumulate(&mut self.parts, x, hidden, dy, d_hidden);
        }
        if self.parts.iter().any(|p| p.weight.is_some()) {
            let packed = Packed::new(View::new(x, rows, self.input), self.precision);
            for part in &mut self.parts {
                if let Some(weight) = &mut part.weight {
                    let transposed =
                        View::strided(&dy[part.start..], rows, part.width, self.output).transposed();
                    matmul(transposed, &packed, &mut weight.gradient, self.input, Into::Add);
                    if let Some(bias) = &mut part.bias {
                        for row in dy.chunks_exact(self.output) {
                            simd::add(&mut bias.gradient, &row[part.start..part.start + part.width]);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.parts.iter_mut().flat_map(|p| {
            let trained = p.weight.is_some();
            let bias = p.bias.as_mut().filter(|_| trained);
            let lora = p.lora.as_mut().map(|l| [&mut l.a, &mut l.b]).into_iter().flatten();
            p.weight.as_mut().into_iter().chain(bias).chain(lora)
        })
    }

    /// Bytes of the packed weights.
    pub(crate) fn bytes(&self) -> usize {
        self.frozen.as_ref().map_or(0, |f| f.forward.bytes() + f.backward.as_ref().map_or(0, Packed::bytes))
    }
}

impl Part {
    /// The trained weight, `[width, input]`.
    fn view(&self, input: usize) -> View<'_> {
        let weight = self.weight.as_ref().expect("what is not frozen is trained");
        View::new(&weight.value, self.width, input)
    }
}

/// Matrices one below the other; copied only if there are several.
fn joined<'a>(matrices: impl Iterator<Item = &'a [f32]>) -> Cow<'a, [f32]> {
    let matrices: Vec<&[f32]> = matrices.collect();
    match matrices[..] {
        [only] => Cow::Borrowed(only),
        _ => Cow::Owned(matrices.concat()),
    }
}
