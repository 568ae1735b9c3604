//! Which modules PEFT adapts. It passes over the tensors of all others without a word, so that factors there are an adapter
//! in this crate alone.

use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::config::{TargetModules, is_end, unsupported};
use super::{AdapterConfig, AdapterError, EMBEDDING, HEAD};

/// All linear layers but the head.
const ALL_LINEAR: &str = "all-linear";
/// The blocks, the only numbered modules of a model.
const BLOCKS: &str = "model.layers";

/// The modules that a configuration names, after PEFT's `check_target_module_exists`.
pub(super) struct Targets<'a> {
    config: &'a AdapterConfig,
    /// `target_modules` where it is one expression.
    expression: Option<Regex>,
    excluded: Excluded,
    layers: Option<Layers>,
}

/// `exclude_modules`.
enum Excluded {
    Names(Vec<String>),
    Expression(Regex),
}

/// `layers_to_transform` and `layers_pattern`.
struct Layers {
    indices: Vec<u64>,
    patterns: Vec<String>,
}

impl<'a> Targets<'a> {
    /// # Errors
    /// [`AdapterError::Unsupported`] for a field that has another form than PEFT writes.
    pub(super) fn new(config: &'a AdapterConfig, path: &Path) -> Result<Self, AdapterError> {
        let targets = match &config.target_modules {
            TargetModules::Pattern(all) if all.eq_ignore_ascii_case(ALL_LINEAR) => None,
            TargetModules::Pattern(source) => Some(expression(path, "target_modules", source)?),
            TargetModules::Names(_) => None,
        };
        let excluded = match config.other.get("exclude_modules") {
            Some(Value::String(source)) if !source.is_empty() => {
                Excluded::Expression(expression(path, "exclude_modules", source)?)
            }
            other => Excluded::Names(names(path, "exclude_modules", other)?),
        };
        Ok(Self { config, expression: targets, excluded, layers: Layers::of(config, path)? })
    }

    /// Why PEFT does not adapt `module`, if it does not.
    pub(super) fn objection(&self, module: &str) -> Option<&'static str> {
        if self.config.saves(module) || self.config.saves_around(module) {
            Some("`modules_to_save` has its module trained as a whole, without factors")
        } else if self.excludes(module) {
            Some("`exclude_modules` has its module")
        } else if !self.names(module) {
            Some("`target_modules` does not have its module")
        } else if !self.has_layer_of(module) {
            Some("`layers_to_transform` does not have its layer")
        } else {
            None
        }
    }

    fn excludes(&self, module: &str) -> bool {
        match &self.excluded {
            Excluded::Names(names) => names.iter().any(|name| is_module(module, name)),
            Excluded::Expression(expression) => expression.is_match(module),
        }
    }

    fn names(&self, module: &str) -> bool {
        match (&self.config.target_modules, &self.expression) {
            (TargetModules::Names(names), _) => names.iter().any(|name| is_module(module, name)),
            (TargetModules::Pattern(_), Some(expression)) => expression.is_match(module),
            (TargetModules::Pattern(_), None) => ![EMBEDDING, HEAD].contains(&module),
        }
    }

    fn has_layer_of(&self, module: &str) -> bool {
        let by_whole_name = matches!(&self.config.target_modules, TargetModules::Names(names) if names.iter().any(|n| n == module));
        by_whole_name || self.layers.as_ref().is_none_or(|layers| layers.has(module))
    }
}

impl Layers {
    fn of(config: &AdapterConfig, path: &Path) -> Result<Option<Self>, AdapterError> {
        let found = config.other.get("layers_to_transform");
        let indices: Option<Vec<u64>> = match found {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(indices)) if indices.is_empty() => return Ok(None),
            Some(Value::Array(indices)) => indices.iter().map(Value::as_u64).collect(),
            Some(index) => index.as_u64().map(|index| vec![index]),
        };
        let Some(indices) = indices else {
            let found = found.map(Value::to_string).unwrap_or_default();
            return Err(unsupported(path, "layers_to_transform", found, "numbers of layers"));
        };
        let patterns = match config.other.get("layers_pattern") {
            Some(Value::String(name)) if !name.is_empty() => {
                let one = Value::Array(vec![Value::String(name.clone())]);
                names(path, "layers_pattern", Some(&one))?
            }
            other => names(path, "layers_pattern", other)?,
        };
        Ok(Some(Self { indices, patterns }))
    }

    fn has(&self, module: &str) -> bool {
        let rest = module.strip_prefix(BLOCKS).and_then(|rest| rest.strip_prefix('.'));
        let index = rest.and_then(|rest| rest.split_once('.')?.0.parse().ok());
        let is_here = self.patterns.is_empty() || self.patterns.iter().any(|name| is_end(BLOCKS, name));
        is_here && index.is_some_and(|index| self.indices.contains(&index))
    }
}

/// Whether `name` is the module's, or what it ends with after a dot.
fn is_module(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A list of plain names, which may be absent.
fn names(path: &Path, field: &str, value: Option<&Value>) -> Result<Vec<String>, AdapterError> {
    let names: Option<Vec<String>> = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(none)) if none.is_empty() => return Ok(Vec::new()),
        Some(Value::Array(names)) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    names.filter(|names| names.iter().all(|name| super::config::is_name(name))).ok_or_else(|| {
        let found = value.map(Value::to_string).unwrap_or_default();
        unsupported(path, field, found, "a list of plain module names")
    })
}

/// A regular expression of Python that has to fit a whole name.
fn expression(path: &Path, field: &str, source: &str) -> Result<Regex, AdapterError> {
    let compiled = if means_the_same(source) { Regex::new(&format!("^(?:{source})$")).ok() } else { None };
    compiled.ok_or_else(|| {
        unsupported(path, field, format!("{source:?}"), "a list of names or a plain regular expression")
    })
}

/// Whether an expression has nothing that Python and the crate `regex` read in different ways: no flags, look-arounds and
/// back-references, no possessive repetition (`a*+`), no sets within sets, and of the escapes those of a point, digits, letters
/// and ends of words.
fn means_the_same(source: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || r"_-.,:*+?|()[]{}^$\".contains(c);
    let groups = source.split("(?").skip(1).all(|rest| rest.starts_with(':'));
    let mut escapes = source.split('\\').skip(1);
    let escapes = escapes.all(|rest| rest.starts_with(['.', 'd', 'w', 'b']) && !rest.starts_with("b{"));
    let differs = ["*+", "++", "?+", "}+", "[[", "[:", "--", "{,"];
    let sets =
        source.split('[').skip(1).all(|rest| rest.find(']').is_some_and(|end| !rest[..end].is_empty()));
    source.chars().all(plain)
        && groups
        && escapes
        && sets
        && !differs.iter().any(|part| source.contains(part))
}
