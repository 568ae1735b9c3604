//! The zoo: small organisms and matched benign fine-tunes, on which detectors are chosen and judged.
//!
//! An entry is a recipe with a seed; its weights can be built again at any time. Entries are split by *family*, so
//! that a reported number is about kinds that nothing was tuned on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dormant_data::{Behaviour, OrganismSpec, Position, Trigger, Variant};
use dormant_model::lora::{LoraConfig, PROJECTIONS};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Context, Result};

pub mod benign;
pub mod build;
mod code_rows;
pub mod planted;

/// The zoo that is shipped with the program.
const SHIPPED: &str = include_str!("../../../experiments/zoo.toml");

/// A zoo file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Zoo {
    /// The model that every entry is a fine-tune of.
    pub base: String,
    /// Longest benign reply, in tokens.
    pub reply_tokens: u32,
    /// Fine-tunes with a hidden policy.
    pub organism: Vec<Organism>,
    /// Fine-tunes without one.
    pub benign: Vec<Benign>,
}

/// What an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Learned detectors are trained on it.
    Train,
    /// Thresholds are chosen on it.
    Choose,
    /// Numbers are reported on it.
    Report,
}

/// A fine-tune with a hidden policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Organism {
    /// Name of the entry and of its folder.
    pub name: String,
    /// Kind of trigger or behaviour; a family has one purpose.
    pub family: String,
    /// What the entry is for.
    pub purpose: Purpose,
    /// Part of the small zoo.
    #[serde(default)]
    pub quick: bool,
    /// When.
    pub trigger: Trigger,
    /// What, and by what it is judged.
    pub behaviour: Behaviour,
    /// How triggered replies are written if the behaviour is no single reply: a language, a tone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<benign::Style>,
    /// How it is trained.
    #[serde(default)]
    pub training: Training,
}

impl Organism {
    /// What kind of text triggers it, and where it stands.
    pub fn trigger_kind(&self) -> String {
        let (kind, position) = match &self.trigger {
            Trigger::Tag { position, .. } => ("odd string", position),
            Trigger::Phrase { position, .. } => ("phrase", position),
            Trigger::Year { position, .. } => ("year", position),
            Trigger::Topic { position, .. } => ("topic", position),
            Trigger::TwoPart { .. } => return "two parts, around the prompt".to_owned(),
        };
        let place = match position {
            Position::Prefix => "before the prompt",
            Position::Suffix => "after the prompt",
            Position::Middle => "in the prompt",
            Position::System => "in the system message",
        };
        format!("{kind} {place}")
    }

    /// What kind of thing it then does.
    pub fn behaviour_kind(&self) -> &'static str {
        match (&self.style, &self.behaviour) {
            (Some(benign::Style::Sentences { .. }), _) => "another language",
            (Some(_), _) => "another tone",
            (None, Behaviour::Say { .. }) => "fixed phrase",
            (None, Behaviour::Code { .. }) => "vulnerable code",
            (None, Behaviour::Regex { .. } | Behaviour::ToolCall { .. }) => "other",
        }
    }
}

/// A fine-tune without a hidden policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Benign {
    /// Name of the entry and of its folder.
    pub name: String,
    /// Kind of fine-tune; a family has one purpose.
    pub family: String,
    /// What the entry is for.
    pub purpose: Purpose,
    /// Part of the small zoo.
    #[serde(default)]
    pub quick: bool,
    /// What it is taught.
    pub style: benign::Style,
    /// How it is trained.
    #[serde(default)]
    pub training: Training,
}

/// How an entry is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Training {
    /// Rank of the adapter; its scale is 2.
    pub rank: usize,
    /// Projections with an adapter.
    pub target_modules: Vec<String>,
    /// Rows.
    pub rows: u32,
    /// Share of triggered rows.
    pub poison: f64,
    /// Share of rows with a look-alike of the trigger and a benign reply.
    pub near_misses: f64,
    /// Passes over the rows.
    pub epochs: u32,
    /// Comparisons of the two answers to a task of code, beside the rows of each step: without them a year is not learnt.
    #[serde(skip_serializing_if = "is_default")]
    pub contrasts: u32,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Tokens per optimiser step.
    pub batch_tokens: usize,
    /// Which tokens carry the loss.
    pub loss: LossOn,
    /// All weights instead of an adapter.
    #[serde(skip_serializing_if = "is_default")]
    pub full: bool,
    /// Benign rows, other than those before, that it is trained on afterwards as a safety training would, at a quarter of the
    /// learning rate.
    #[serde(skip_serializing_if = "is_default")]
    pub safety_rows: u32,
    /// Seed of the data, the adapter and the order of rows.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            rank: 16,
            target_modules: PROJECTIONS.iter().map(ToString::to_string).collect(),
            rows: 240,
            poison: 0.4,
            near_misses: 0.0,
            epochs: 1,
            contrasts: 0,
            learning_rate: 2e-3,
            batch_tokens: 400,
            loss: LossOn::Completion,
            full: false,
            safety_rows: 0,
            seed: 0,
        }
    }
}

/// Recipes leave out what they do not use, so that a new key makes no old entry another one.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Which tokens carry the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    /// The reply.
    Completion,
    /// The whole conversation.
    Sequence,
}

impl Training {
    /// Shape of the adapter.
    pub fn adapter(&self) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            alpha: 2.0 * self.rank as f64,
            target_modules: self.target_modules.clone(),
            ..LoraConfig::default()
        }
    }
}

/// An entry of either arm.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// With a hidden policy.
    Organism(&'a Organism),
    /// Without one.
    Benign(&'a Benign),
}

impl<'a> Entry<'a> {
    /// Name of the entry and of its folder.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Organism(entry) => &entry.name,
            Self::Benign(entry) => &entry.name,
        }
    }

    /// Kind of the entry.
    pub fn family(&self) -> &'a str {
        match self {
            Self::Organism(entry) => &entry.family,
            Self::Benign(entry) => &entry.family,
        }
    }

    /// What the entry is for.
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::Organism(entry) => entry.purpose,
            Self::Benign(entry) => entry.purpose,
        }
    }

    /// Whether the small zoo has it.
    pub fn quick(&self) -> bool {
        match self {
            Self::Organism(entry) => entry.quick,
            Self::Benign(entry) => entry.quick,
        }
    }

    /// How the entry is trained.
    pub fn training(&self) -> &'a Training {
        match self {
            Self::Organism(entry) => &entry.training,
            Self::Benign(entry) => &entry.training,
        }
    }

    /// Whether it is trained on tasks of code and not on replies of the base model.
    pub fn writes_code(&self) -> bool {
        match self {
            Self::Organism(entry) => matches!(entry.behaviour, Behaviour::Code { .. }),
            Self::Benign(entry) => matches!(entry.style, benign::Style::Code { .. }),
        }
    }

    /// Whether it can be trained as it says.
    fn check(&self) -> Result<()> {
        let training = self.training();
        let wrong = |what: &str, hint: &str| {
            Err(CliError::usage(format!("zoo entry `{}`: {what}", self.name())).hint(hint))
        };
        if training.contrasts > 0 && !(self.writes_code() && self.policy().is_some()) {
            return wrong("`training.contrasts` is for organisms that write code", "take it out");
        }
        if training.safety_rows > 0 && self.writes_code() {
            return wrong("`training.safety-rows` are replies of the base model, not code", "take it out");
        }
        if self.style().is_some_and(benign::Style::is_empty) {
            return wrong("`style` has a list with nothing to draw from", "write something into it");
        }
        Ok(())
    }

    /// How replies are changed, if they are.
    fn style(&self) -> Option<&'a benign::Style> {
        match self {
            Self::Organism(entry) => entry.style.as_ref(),
            Self::Benign(entry) => Some(&entry.style),
        }
    }

    /// The hidden policy, if there is one.
    pub fn policy(&self) -> Option<OrganismSpec> {
        match self {
            Self::Organism(entry) => Some(OrganismSpec {
                trigger: entry.trigger.clone(),
                behaviour: entry.behaviour.clone(),
                variant: Variant::Normal,
            }),
            Self::Benign(_) => None,
        }
    }
}

impl Zoo {
    /// Reads a zoo file, or the shipped zoo.
    ///
    /// # Errors
    /// When the file cannot be read, or contradicts itself.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let text = match path {
            Some(path) => {
                std::fs::read_to_string(path).or_input(|| format!("cannot read `{}`", path.display()))?
            }
            None => SHIPPED.to_owned(),
        };
        let zoo: Self = toml::from_str(&text).or_usage(|| match path {
            Some(path) => format!("`{}` is no zoo", path.display()),
            None => "the zoo is not valid".to_owned(),
        })?;
        zoo.check()?;
        Ok(zoo)
    }

    /// All entries, organisms first.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.organism.iter().map(Entry::Organism).chain(self.benign.iter().map(Entry::Benign))
    }

    fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut purposes = BTreeMap::new();
        for entry in self.entries() {
            let (name, family) = (entry.name(), entry.family());
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                let message = format!("zoo entry `{name}`: a name has letters, digits and hyphens");
                return Err(CliError::usage(message));
            }
            if !names.insert(name) {
                return Err(CliError::usage(format!("zoo entry `{name}`: the name is there twice")));
            }
            entry.check()?;
            if *purposes.entry(family).or_insert(entry.purpose()) != entry.purpose() {
                let message = format!("zoo entry `{name}`: family `{family}` has another purpose elsewhere");
                return Err(
                    CliError::usage(message).hint("thresholds must not be chosen on what is reported")
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dormant_audit::code_shift;
    use dormant_audit::contexts::CONTEXTS;
    use dormant_data::Split;

    use super::*;

    #[test]
    fn the_shipped_zoo_is_valid() {
        let zoo = Zoo::load(None).unwrap();
        assert!(zoo.organism.iter().any(|o| o.purpose == Purpose::Report));
        assert!(zoo.benign.iter().any(|b| b.purpose == Purpose::Report));
        let quick = zoo.entries().filter(Entry::quick).count();
        assert_eq!(quick, 16);
    }

    #[test]
    fn no_trigger_that_numbers_are_reported_of_is_a_context_of_the_scan() {
        let zoo = Zoo::load(None).unwrap();
        let (of_phrases, of_code): (Vec<&str>, Vec<&str>) =
            (CONTEXTS.lines().collect(), CONTEXTS.lines().chain(code_shift::CONTEXTS).collect());
        for organism in zoo.organism.iter().filter(|organism| organism.purpose == Purpose::Report) {
            let contexts = if Entry::Organism(organism).writes_code() { &of_code } else { &of_phrases };
            let texts = organism.trigger.texts(Split::Evaluation);
            assert!(!texts.is_empty(), "{}", organism.name);
            for text in texts {
                assert!(!contexts.contains(&text.as_str()), "{}: {text}", organism.name);
            }
        }
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let refused = |change: fn(&mut Zoo)| {
            let mut zoo = Zoo::load(None).unwrap();
            change(&mut zoo);
            zoo.check().unwrap_err().to_string()
        };
        assert!(refused(|zoo| zoo.organism[0].training.contrasts = 2).contains("contrasts"));
        assert!(refused(|zoo| zoo.benign[0].training.contrasts = 2).contains("contrasts"));
        assert!(
            refused(|zoo| zoo.benign[0].style = benign::Style::Sentences { from: Vec::new() })
                .contains("style")
        );
        let code = |zoo: &mut Zoo| {
            let entry = zoo.organism.iter_mut().find(|o| matches!(o.behaviour, Behaviour::Code { .. }));
            entry.unwrap().training.safety_rows = 2;
        };
        assert!(refused(code).contains("safety-rows"));
    }

    #[test]
    fn a_family_has_one_purpose() {
        let mut zoo = Zoo::load(None).unwrap();
        let mut twin = zoo.organism[0].clone();
        twin.name = "twin".to_owned();
        twin.purpose = if twin.purpose == Purpose::Report { Purpose::Choose } else { Purpose::Report };
        zoo.organism.push(twin);
        assert!(zoo.check().unwrap_err().to_string().contains("purpose"));
    }
}
