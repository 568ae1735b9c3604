//! `adapter_config.json`, and which of PEFT's features it may use.

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{AdapterError, CONFIG};
use crate::error::Error;

/// Largest rank that is accepted; far beyond any in use.
const MAX_RANK: usize = 1 << 16;

/// Fields that have no influence on the output of a trained adapter.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Fields that only say which modules are adapted; [`Targets`](super::targets::Targets) reads them.
const PLACEMENT: &[&str] = &["exclude_modules", "layers_pattern", "layers_to_transform"];

/// The configuration of a `LoRA` adapter, with PEFT's names.
#[expect(clippy::struct_excessive_bools, reason = "PEFT's own fields")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// `LORA`.
    pub peft_type: String,
    /// `CAUSAL_LM`.
    #[serde(default)]
    pub task_type: Option<String>,
    /// The model that the adapter was trained on, for the reader.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// Inner dimension of the layers that `rank_pattern` does not name.
    #[serde(default = "default_rank")]
    pub r: usize,
    /// Numerator of the scale of the layers that `alpha_pattern` does not name.
    #[serde(serialize_with = "serialize_alpha", default = "default_alpha")]
    pub lora_alpha: f64,
    /// Probability of dropping an input in training; no effect afterwards.
    #[serde(default)]
    pub lora_dropout: f64,
    /// The adapted layers.
    pub target_modules: TargetModules,
    /// Scale by `α / √r` instead of `α / r`.
    #[serde(default)]
    pub use_rslora: bool,
    /// Train the norms of the changed weights as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_dora: bool,
    /// Inner dimensions that differ, by module or the end of its name; the first that fits counts.
    #[serde(default)]
    pub rank_pattern: IndexMap<String, usize>,
    /// Numerators that differ, by module or the end of its name; the first that fits counts.
    #[serde(default)]
    pub alpha_pattern: IndexMap<String, f64>,
    /// Whether PEFT loads it frozen.
    #[serde(default)]
    pub inference_mode: bool,
    /// Which biases were trained; a model of the Llama family has none.
    #[serde(default = "none")]
    pub bias: String,
    /// Weights are `[input, output]`. For linear layers, and there are no others here, PEFT takes it for false.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// Modules that were trained as a whole beside the adapted layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules_to_save: Option<Vec<String>>,
    /// All other fields; those that would change the output are refused.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// PEFT declares α as an integer.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn serialize_alpha<S: Serializer>(alpha: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if alpha.fract() == 0.0 && alpha.abs() < 1e9 {
        serializer.serialize_i64(*alpha as i64)
    } else {
        serializer.serialize_f64(*alpha)
    }
}

/// What PEFT takes where a configuration has no rank.
fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

fn none() -> String {
    "none".to_owned()
}

/// The layers that an adapter names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Last parts of the names of the layers.
    Names(Vec<String>),
    /// A regular expression over whole names, or `all-linear`.
    Pattern(String),
}

impl AdapterConfig {
    /// The configuration of a plain `LoRA` adapter that was trained on `base_model`.
    pub fn new(rank: usize, alpha: f64, target_modules: Vec<String>, base_model: Option<String>) -> Self {
        Self {
            peft_type: "LORA".to_owned(),
            task_type: Some("CAUSAL_LM".to_owned()),
            base_model_name_or_path: base_model,
            r: rank,
            lora_alpha: alpha,
            lora_dropout: 0.0,
            target_modules: TargetModules::Names(target_modules),
            use_rslora: false,
            use_dora: false,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            inference_mode: true,
            bias: none(),
            fan_in_fan_out: false,
            modules_to_save: None,
            other: Map::new(),
        }
    }

    /// Reads the configuration in an adapter's folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`], or [`Error::Adapter`] for a feature that is not supported.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(CONFIG);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let config: Self = serde_json::from_slice(&bytes).map_err(Error::json(&path))?;
        config.validate(&path)?;
        Ok(config)
    }

    /// The rank of a module.
    pub fn rank(&self, module: &str) -> usize {
        by_pattern(&self.rank_pattern, module).unwrap_or(self.r)
    }

    /// The factor `s` of a module's `s B A`.
    pub fn scale(&self, module: &str) -> f64 {
        let rank = self.rank(module) as f64;
        let alpha = by_pattern(&self.alpha_pattern, module).unwrap_or(self.lora_alpha);
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Gives one module a rank and an α of its own, where they are not those of the others.
    pub(crate) fn set_scale(&mut self, module: &str, rank: usize, alpha: f64) {
        if rank != self.r {
            self.rank_pattern.insert(module.to_owned(), rank);
        }
        if alpha.to_bits() != self.lora_alpha.to_bits() {
            self.alpha_pattern.insert(module.to_owned(), alpha);
        }
    }

    /// Whether `module` was trained as a whole. PEFT takes any end of its name, so that `norm` is all norms.
    pub fn saves(&self, module: &str) -> bool {
        self.modules_to_save.iter().flatten().any(|name| module.ends_with(name))
    }

    /// Whether `module` is one that `modules_to_save` names or a part of one: PEFT puts no factors there.
    pub(super) fn saves_around(&self, module: &str) -> bool {
        let parents = module.match_indices('.').map(|(end, _)| &module[..end]);
        let saves = |module: &str| self.modules_to_save.iter().flatten().any(|name| is_end(module, name));
        parents.chain([module]).any(saves)
    }

    /// Checks that the adapter means what this crate computes.
    pub(super) fn validate(&self, path: &Path) -> Result<(), AdapterError> {
        self.reject_kinds(path)?;
        self.reject_initialisation(path)?;
        self.reject_expressions(path)?;
        self.reject_other(path)?;
        self.check_numbers(path)
    }

    fn reject_kinds(&self, path: &Path) -> Result<(), AdapterError> {
        let task = self.task_type.as_deref().unwrap_or("CAUSAL_LM");
        let kinds = [("peft_type", self.peft_type.as_str(), "LORA"), ("task_type", task, "CAUSAL_LM")];
        match kinds.into_iter().find(|(_, found, expected)| found != expected) {
            Some((field, found, expected)) => Err(unsupported(path, field, found.to_owned(), expected)),
            None if !["none", "all", "lora_only"].contains(&self.bias.as_str()) => {
                Err(unsupported(path, "bias", self.bias.clone(), "`none`, `all` or `lora_only`"))
            }
            None => Ok(()),
        }
    }

    /// Some initialisations change the base model's weights as well, and PEFT repeats that when it loads the adapter.
    fn reject_initialisation(&self, path: &Path) -> Result<(), AdapterError> {
        match self.other.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => Ok(()),
            Some(Value::String(name)) if ["gaussian", "eva", "orthogonal"].contains(&name.as_str()) => Ok(()),
            Some(found) => {
                Err(unsupported(path, "init_lora_weights", found.to_string(), "true or \"gaussian\""))
            }
        }
    }

    /// PEFT takes the names for regular expressions.
    fn reject_expressions(&self, path: &Path) -> Result<(), AdapterError> {
        let ranks = self.rank_pattern.keys().map(|key| ("rank_pattern", key));
        let alphas = self.alpha_pattern.keys().map(|key| ("alpha_pattern", key));
        let saved = self.modules_to_save.iter().flatten().map(|name| ("modules_to_save", name));
        let ranks = ranks.chain(alphas).map(|(field, key)| (field, key, whole_name(key).unwrap_or(key)));
        match ranks
            .chain(saved.map(|(field, key)| (field, key, key.as_str())))
            .find(|(.., name)| !is_name(name))
        {
            Some((field, key, _)) => Err(unsupported(path, field, format!("{key:?}"), "plain module names")),
            None => Ok(()),
        }
    }

    /// A field that is not known here may change the output, unless it is switched off.
    fn reject_other(&self, path: &Path) -> Result<(), AdapterError> {
        let used = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        };
        let mut other = self.other.iter();
        match other.find(|(field, value)| {
            let field = field.as_str();
            used(value)
                && field != "init_lora_weights"
                && !WITHOUT_EFFECT.contains(&field)
                && !PLACEMENT.contains(&field)
        }) {
            Some((field, value)) => Err(unsupported(path, field, value.to_string(), "null or false")),
            None => Ok(()),
        }
    }

    fn check_numbers(&self, path: &Path) -> Result<(), AdapterError> {
        let invalid = |field: &str, found: String, expected| AdapterError::Value {
            path: path.to_path_buf(),
            field: field.to_owned(),
            found,
            expected,
        };
        let ranks = std::iter::once(("r", self.r))
            .chain(self.rank_pattern.iter().map(|(name, &r)| (name.as_str(), r)));
        for (field, rank) in ranks {
            if !(1..=MAX_RANK).contains(&rank) {
                return Err(invalid(field, rank.to_string(), "a rank of 1 to 65536"));
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(name, &alpha)| (name.as_str(), alpha));
        for (field, alpha) in std::iter::once(("lora_alpha", self.lora_alpha)).chain(alphas) {
            if !alpha.is_finite() {
                return Err(invalid(field, alpha.to_string(), "a finite number"));
            }
        }
        Ok(())
    }
}

pub(super) fn unsupported(path: &Path, field: &str, found: String, expected: &'static str) -> AdapterError {
    AdapterError::Unsupported { path: path.to_path_buf(), field: field.to_owned(), found, expected }
}

/// Whether a name is plain enough to mean the same as the regular expression that PEFT takes it for, but for its points.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

fn by_pattern<T: Copy>(pattern: &IndexMap<String, T>, module: &str) -> Option<T> {
    let fits = |name: &str| match whole_name(name) {
        Some(name) => module.len() == name.len() && is_end(module, name),
        None => is_end(module, name),
    };
    pattern.iter().find(|(name, _)| fits(name)).map(|(_, &value)| value)
}

/// The name in a key of `rank_pattern` or `alpha_pattern` that is for one module and for none whose name ends with it.
fn whole_name(key: &str) -> Option<&str> {
    key.strip_prefix('^')
}

/// Whether `module` fits the regular expression `(.*\.)?(p)$` of PEFT, where `p` is a plain name: a point in it is any character.
pub(super) fn is_end(module: &str, p: &str) -> bool {
    let (module, p) = (module.as_bytes(), p.as_bytes());
    let Some(start) = module.len().checked_sub(p.len()) else { return false };
    let is_whole = start == 0 || module[start - 1] == b'.';
    is_whole && module[start..].iter().zip(p).all(|(m, p)| *p == b'.' || m == p)
}
