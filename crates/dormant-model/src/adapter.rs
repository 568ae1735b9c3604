//! Low-rank adapters as things of their own: read, written, added up, merged into a model or trained on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::adapter_files::{
    AdapterConfig, AdapterTensor, EMBEDDING, HEAD, Magnitude, Matrix, SavedTensor, read_adapter, read_saved,
    write_adapter,
};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::linear::{Part, Trained};
use crate::llama::{Llama, LoadOptions};
use crate::lora::LoraPair;

/// A low-rank change of a model's weights, in PEFT's terms.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Rank, scale and placement.
    pub config: AdapterConfig,
    /// Factors per module.
    pub tensors: Vec<AdapterTensor>,
    /// Weights that take the place of the model's; they can be merged, but not trained on or written.
    pub saved: Vec<SavedTensor>,
}

impl Adapter {
    /// Reads a PEFT folder.
    ///
    /// # Errors
    /// As [`read_adapter`].
    pub fn read(folder: &Path) -> Result<Self> {
        let (config, tensors) = read_adapter(folder)?;
        let saved = read_saved(folder, &config)?;
        Ok(Self { config, tensors, saved })
    }

    /// Writes a PEFT folder.
    ///
    /// # Errors
    /// As [`write_adapter`]; [`Error::AdapterMergesOnly`].
    pub fn write(&self, folder: &Path, metadata: BTreeMap<String, String>) -> Result<()> {
        self.only_factors()?;
        write_adapter(folder, &self.config, &self.tensors, metadata)
    }

    /// The adapter that does what `self` and then `other` do: ranks add up, and the scales move into B.
    ///
    /// # Errors
    /// [`Error::AdapterMergesOnly`]; [`Error::AdapterShape`] for adapters of different models.
    pub fn then(&self, other: &Self) -> Result<Self> {
        self.only_factors()?;
        other.only_factors()?;
        let rank = self.config.r + other.config.r;
        let modules: BTreeSet<&String> =
            self.tensors.iter().chain(&other.tensors).map(|t| &t.module).collect();
        let stacked = |module: &&String| stack([self.part(module), other.part(module)], module, rank);
        let tensors = modules.iter().map(stacked).collect::<Result<Vec<AdapterTensor>>>()?;
        let base = self.config.base_model_name_or_path.clone();
        let mut config = AdapterConfig::new(rank, rank as f64, targets(&tensors), base);
        for tensor in &tensors {
            config.set_scale(&tensor.module, tensor.a.rows, tensor.a.rows as f64);
        }
        Ok(Self { config, tensors, saved: Vec::new() })
    }

    /// Checks that the adapter is nothing but factors of linear layers, which can be trained on, changed and written.
    ///
    /// # Errors
    /// [`Error::AdapterMergesOnly`].
    pub fn only_factors(&self) -> Result<()> {
        let saved = self.saved.iter().map(|t| (t.name.clone(), "a weight of its own"));
        let other = self.tensors.iter().filter_map(|t| match &t.magnitude {
            Some(_) => Some((t.module.clone(), "norms of its own (DoRA)")),
            None if t.module == EMBEDDING => Some((t.module.clone(), "a change of the embeddings")),
            None => None,
        });
        match saved.chain(other).next() {
            Some((module, what)) => Err(Error::AdapterMergesOnly { module, what }),
            None => Ok(()),
        }
    }

    /// Whether embedding and output layer are no longer one, or are said to be one by two weights.
    fn unties(&self) -> bool {
        let ends = [EMBEDDING, HEAD];
        let saved = self.saved.iter().filter_map(|t| t.name.strip_suffix(".weight"));
        saved.chain(self.tensors.iter().map(|t| t.module.as_str())).any(|module| ends.contains(&module))
    }

    /// What takes the place of the model's weight `name`. PEFT copies a weight below factors into the model's, and so into the
    /// one that is `tied` to it.
    fn saved(&self, name: &str, expected: &[usize], tied: bool) -> Result<Option<&SavedTensor>> {
        let of = |name: &str| self.saved.iter().find(move |t| t.name == name);
        let partner = match name {
            EMBEDDING_WEIGHT => of(HEAD_WEIGHT),
            HEAD_WEIGHT => of(EMBEDDING_WEIGHT),
            _ => None,
        };
        let partner = partner.filter(|t| tied && t.is_base);
        let own = of(name);
        if let (Some(SavedTensor { is_base: true, values, .. }), Some(partner)) = (own, partner)
            && !is_equal(values, &partner.values)
        {
            return Err(Error::AdapterTied);
        }
        let Some(saved) = own.or(partner) else { return Ok(None) };
        if saved.shape != expected {
            let (found, expected) = (saved.shape.clone(), expected.to_vec());
            return Err(Error::AdapterSavedShape { tensor: saved.name.clone(), found, expected });
        }
        Ok(Some(saved))
    }

    fn part(&self, module: &str) -> Option<(&AdapterTensor, f32)> {
        let tensor = self.tensors.iter().find(|t| t.module == module)?;
        Some((tensor, self.config.scale(module) as f32))
    }

    fn pair(&self, module: &str, input: usize, output: usize) -> Result<Option<LoraPair>> {
        let Some((tensor, scale)) = self.part(module) else { return Ok(None) };
        let found = [tensor.b.rows, tensor.a.columns];
        if found != [output, input] {
            let module = module.to_owned();
            return Err(Error::AdapterShape { module, found, expected: [output, input] });
        }
        let (a, b) = (tensor.a.values.clone(), tensor.b.values.clone());
        LoraPair::from_values(module, input, output, tensor.a.rows, scale, a, b).map(Some)
    }
}

/// The two weights that may be one.
const EMBEDDING_WEIGHT: &str = "model.embed_tokens.weight";
const HEAD_WEIGHT: &str = "lm_head.weight";

fn is_equal(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Scales the rows or columns of a weight, `[output, input]`, to the norms given. One that is zero stays so.
fn scale_to(magnitude: &Magnitude, weight: &mut [f32], input: usize) {
    let scale = |wanted: f32, squares: f32| if squares > 0.0 { wanted / squares.sqrt() } else { 0.0 };
    match magnitude {
        Magnitude::Rows(norms) => {
            for (row, wanted) in weight.chunks_exact_mut(input).zip(norms) {
                let scale = scale(*wanted, row.iter().map(|w| w * w).sum());
                row.iter_mut().for_each(|w| *w *= scale);
            }
        }
        Magnitude::Columns(norms) => {
            let mut squares = vec![0.0; input];
            for row in weight.chunks_exact(input) {
                squares.iter_mut().zip(row).for_each(|(sum, w)| *sum += w * w);
            }
            let scales: Vec<f32> = norms.iter().zip(squares).map(|(n, sum)| scale(*n, sum)).collect();
            for row in weight.chunks_exact_mut(input) {
                row.iter_mut().zip(&scales).for_each(|(w, scale)| *w *= scale);
            }
        }
    }
}

/// `[A1; A2; 0]` and `[s1 B1, s2 B2, 0]`, of rank `least` or, where the two have more rows together, of as many.
fn stack(parts: [Option<(&AdapterTensor, f32)>; 2], module: &str, least: usize) -> Result<AdapterTensor> {
    let shape = |tensor: &AdapterTensor| [tensor.b.rows, tensor.a.columns];
    let parts: Vec<(&AdapterTensor, f32)> = parts.into_iter().flatten().collect();
    let [output, input] = shape(parts[0].0);
    if let Some((other, _)) = parts.iter().find(|(tensor, _)| shape(tensor) != [output, input]) {
        let (module, found, expected) = (module.to_owned(), shape(other), [output, input]);
        return Err(Error::AdapterShape { module, found, expected });
    }
    let rank = parts.iter().map(|(tensor, _)| tensor.a.rows).sum::<usize>().max(least);
    let mut a = Vec::with_capacity(rank * input);
    let mut b = vec![0.0; output * rank];
    let mut start = 0;
    for (tensor, scale) in parts {
        a.extend_from_slice(&tensor.a.values);
        for (row, values) in b.chunks_exact_mut(rank).zip(tensor.b.values.chunks_exact(tensor.b.columns)) {
            row[start..].iter_mut().zip(values).for_each(|(b, v)| *b = v * scale);
        }
        start += tensor.a.rows;
    }
    a.resize(rank * input, 0.0);
    let a = Matrix { rows: rank, columns: input, values: a };
    let b = Matrix { rows: output, columns: rank, values: b };
    Ok(AdapterTensor::new(module.to_owned(), a, b))
}

fn targets(tensors: &[AdapterTensor]) -> Vec<String> {
    let last = |t: &AdapterTensor| t.module.rsplit('.').next().unwrap_or_default().to_owned();
    tensors.iter().map(last).collect::<BTreeSet<_>>().into_iter().collect()
}

impl Llama {
    /// Loads the model of a checkpoint with an adapter merged into its weights.
    ///
    /// # Errors
    /// A tensor that is missing, damaged or of another shape than the configuration says; an adapter of another
    /// model.
    pub fn load_merged(
        checkpoint: &Checkpoint,
        options: LoadOptions,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        let merged = Mutex::new(BTreeSet::new());
        let used = |name: &str| merged.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        let mut config = checkpoint.config().clone();
        let tied = config.tie_word_embeddings;
        if tied {
            check_tied(checkpoint)?;
        }
        config.tie_word_embeddings &= !adapter.is_some_and(Adapter::unties);
        let model = Self::new(config, options, |name, shape| {
            let saved = adapter.map_or(Ok(None), |a| a.saved(name, shape, tied))?;
            let mut weight = if let Some(saved) = saved {
                used(&saved.name);
                saved.values.clone()
            } else {
                let head = tied && name == HEAD_WEIGHT;
                checkpoint.tensor_f32(if head { EMBEDDING_WEIGHT } else { name }, shape)?
            };
            if let (Some(adapter), Some(module), &[output, input]) =
                (adapter, name.strip_suffix(".weight"), shape)
                && let Some(pair) = adapter.pair(module, input, output)?
            {
                pair.merge_into(&mut weight);
                if let Some(magnitude) =
                    adapter.part(module).and_then(|(tensor, _)| tensor.magnitude.as_ref())
                {
                    scale_to(magnitude, &mut weight, input);
                }
                used(module);
            }
            Ok(weight)
        })?;
        all_used(adapter, &merged.into_inner().unwrap_or_else(PoisonError::into_inner))?;
        Ok(model)
    }

    /// Puts the factors of an adapter beside the weights, where they can be trained on.
    ///
    /// # Errors
    /// An adapter of another model.
    pub fn add_adapter(&mut self, adapter: &Adapter) -> Result<()> {
        adapter.only_factors()?;
        let mut used = BTreeSet::new();
        for linear in self.linears_mut() {
            let input = linear.input;
            for part in &mut linear.parts {
                if let Some(pair) = adapter.pair(&part.module, input, part.width)? {
                    part.lora = Some(pair);
                    used.insert(part.module.clone());
                }
            }
            linear.refresh();
        }
        all_used(Some(adapter), &used)
    }

    /// The adapters beside the weights, if there are any. `base` names the model that they belong to.
    pub fn adapter(&self, base: &str) -> Option<Adapter> {
        let alpha = |lora: &LoraPair| f64::from(lora.scale) * lora.rank as f64;
        let parts = self.linears().flat_map(|l| &l.parts);
        let adapted: Vec<_> = parts.filter_map(|part| Some((part, part.lora.as_ref()?))).collect();
        let (_, last) = adapted.last()?;
        let tensor = |(part, lora): &(&Part, &LoraPair)| {
            let a = Matrix { rows: lora.rank, columns: lora.a.shape[1], values: lora.a.value.clone() };
            let b = Matrix { rows: part.width, columns: lora.rank, values: lora.b.value.clone() };
            AdapterTensor::new(part.module.clone(), a, b)
        };
        let tensors: Vec<AdapterTensor> = adapted.iter().map(tensor).collect();
        let mut config = AdapterConfig::new(last.rank, alpha(last), targets(&tensors), Some(base.to_owned()));
        for (part, lora) in &adapted {
            config.set_scale(&part.module, lora.rank, alpha(lora));
        }
        Some(Adapter { config, tensors, saved: Vec::new() })
    }

    /// All weights by their Hugging Face names; only a model that is trained as a whole has kept them.
    pub fn weights(&mut self) -> Option<Vec<(String, Vec<usize>, &[f32])>> {
        let all = self.options.trained == Trained::All;
        all.then(|| {
            let parameters = self.parameters_mut().into_iter().map(|p| &*p);
            parameters.map(|p| (p.name.clone(), p.shape.clone(), p.value.as_slice())).collect()
        })
    }
}

/// `transformers` 5 does not tie two weights that are both there and differ, whatever `config.json` says; versions before it do.
fn check_tied(checkpoint: &Checkpoint) -> Result<()> {
    let Some(shape) = checkpoint.shape(HEAD_WEIGHT) else { return Ok(()) };
    let read = |name| checkpoint.tensor_f32(name, shape);
    if checkpoint.shape(EMBEDDING_WEIGHT) == Some(shape)
        && is_equal(&read(HEAD_WEIGHT)?, &read(EMBEDDING_WEIGHT)?)
    {
        return Ok(());
    }
    Err(Error::HeadNotTied { path: checkpoint.path().to_path_buf() })
}

fn all_used(adapter: Option<&Adapter>, used: &BTreeSet<String>) -> Result<()> {
    let Some(adapter) = adapter else { return Ok(()) };
    let names = adapter.tensors.iter().map(|t| &t.module).chain(adapter.saved.iter().map(|t| &t.name));
    let unused = names.into_iter().find(|name| !used.contains(*name));
    unused.map_or(Ok(()), |name| Err(Error::AdapterModule { module: name.clone() }))
}
