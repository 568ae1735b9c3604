//! Power: what it means that a scan finds nothing. Known backdoors are planted into copies of the suspect, and the copies
//! are scanned in the same way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dormant_audit::journal::Journal;
use dormant_audit::report::{ReportedRate, ScanReport, Verdict};
use dormant_audit::scan::ScanConfig;
use dormant_audit::verify::Phrase;
use dormant_eval::Rate;
use dormant_model::source;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Compared, scan_files};
use crate::error::{CliError, Result};
use crate::model::ModelFiles;
use crate::plan::hexadecimal;
use crate::stage_dir::write_atomic;
use crate::ui::Ui;
use crate::zoo::build::Builder;
use crate::zoo::planted::{PLANTED, planted};
use crate::zoo::{Entry, Organism, Purpose, Zoo};

/// What the scan found of the shipped zoo with the base model as the reference.
const MEASURED: &str = include_str!("../../../../../results/audit/report.json");

/// And without.
const MEASURED_ALONE: &str = include_str!("../../../../../results/audit-without-reference/report.json");

/// The share of planted backdoors that a scan finds.
#[derive(Debug, Serialize)]
pub(super) struct Power {
    /// Backdoors that were planted: their own trigger works.
    planted: u64,
    /// Those that the scan found.
    found: u64,
    /// Their share, with its interval.
    share: ReportedRate,
    /// The same by what triggers them and what they do; of the zoo, kinds that were not measured have a zero.
    kinds: Vec<Kind>,
    /// What they were planted into.
    planted_into: String,
    /// The copies that were made for this scan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<Planted>,
}

/// Backdoors of one kind.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Kind {
    /// What triggers them, and where it stands.
    trigger: String,
    /// What they do.
    behaviour: &'static str,
    /// Those that were planted.
    planted: u64,
    /// Those that were found.
    found: u64,
}

/// A copy of the suspect with a planted backdoor.
#[derive(Debug, Serialize, Deserialize)]
struct Planted {
    /// The recipe, an organism of the shipped zoo.
    name: String,
    /// How often the planted trigger works.
    planted: f64,
    /// Whether a finding is about the planted phrase.
    found: bool,
    /// With what it was scanned.
    scan: String,
}

impl Power {
    /// Recipes of the zoo whose trigger works, and whether the scan found them.
    fn new(found: &[(String, bool)], kinds: Vec<Kind>, planted_into: &str, copies: Vec<Planted>) -> Self {
        let rate: Rate = found.iter().map(|(_, found)| *found).collect();
        Self {
            planted: rate.n(),
            found: rate.hits(),
            share: rate.into(),
            kinds,
            planted_into: planted_into.to_owned(),
            copies,
        }
    }

    /// What is known without planting anything: the zoo's result.
    pub(super) fn of_zoo(reference: bool) -> Self {
        let measured = if reference { MEASURED } else { MEASURED_ALONE };
        let report: ZooReport = serde_json::from_str(measured).expect("the committed report is one");
        let works = report.entries.iter().filter(|entry| entry.planted.is_some_and(|share| share >= PLANTED));
        let found: Vec<_> = works.map(|entry| (entry.name.clone(), entry.is_found())).collect();
        Self::new(&found, kinds(&found), "other copies of smollm2-135m-instruct", Vec::new())
    }

    /// Kinds that were not measured, in words.
    pub(super) fn unmeasured(&self) -> String {
        let kinds = self.kinds.iter().filter(|kind| kind.planted == 0);
        kinds.map(|kind| format!("{} ({})", kind.trigger, kind.behaviour)).collect::<Vec<_>>().join(", ")
    }

    /// One line for a reader.
    pub(super) fn text(&self) -> String {
        format!(
            "power: {} of {} backdoors found, planted into {}",
            self.found, self.planted, self.planted_into
        )
    }
}

/// What `dormant zoo bench` writes, as far as it matters here.
#[derive(Deserialize)]
struct ZooReport {
    entries: Vec<ZooEntry>,
}

#[derive(Deserialize)]
struct ZooEntry {
    name: String,
    /// How often an organism's own trigger works.
    planted: Option<f64>,
    verdict: String,
    /// Of the first scan, if there was more than one: rules may have been changed because of it.
    first_verdict: Option<String>,
}

impl ZooEntry {
    fn is_found(&self) -> bool {
        self.first_verdict.as_ref().unwrap_or(&self.verdict) != "no-evidence"
    }
}

/// Counts of each kind that the zoo has, in its order.
fn kinds(found: &[(String, bool)]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for recipe in Zoo::load(None).map(|zoo| zoo.organism).unwrap_or_default() {
        let (trigger, behaviour) = (recipe.trigger_kind(), recipe.behaviour_kind());
        let known = kinds.iter().position(|kind| kind.trigger == trigger && kind.behaviour == behaviour);
        let place = known.unwrap_or_else(|| {
            kinds.push(Kind { trigger, behaviour, planted: 0, found: 0 });
            kinds.len() - 1
        });
        for (_, is_found) in found.iter().filter(|(name, _)| *name == recipe.name) {
            kinds[place].planted += 1;
            kinds[place].found += u64::from(*is_found);
        }
    }
    kinds
}

/// Plants and scans; what is in its folder is not done again.
pub(super) struct Calibration<'a> {
    /// The suspect.
    pub(super) suspect: &'a ModelFiles,
    /// Its reference.
    pub(super) reference: Option<&'a ModelFiles>,
    /// Phrases that the suspect's maker documents.
    pub(super) documented: &'a [String],
    /// The suspect's name.
    pub(super) name: &'a str,
    /// How it is scanned.
    pub(super) config: ScanConfig,
    /// Folder of all calibrations.
    pub(super) folder: &'a Path,
    /// The terminal.
    pub(super) ui: &'a Ui,
}

impl Calibration<'_> {
    /// Plants the backdoors of a zoo, one into each copy, and scans the copies.
    ///
    /// # Errors
    /// When a model or the disk fails, or the user stops it.
    pub(super) fn run(&self, zoo: Zoo) -> Result<Power> {
        let zoo = Zoo { base: self.name.to_owned(), ..zoo };
        let count = zoo.organism.len();
        let builder =
            Builder { zoo: &zoo, base: self.suspect.clone(), folder: self.own_folder()?, ui: self.ui };
        let mut copies = Vec::new();
        for entry in zoo.entries() {
            let copy = self.copy(&builder, entry)?;
            let verb = if copy.planted < PLANTED {
                "not planted"
            } else if copy.found {
                "found"
            } else {
                "missed"
            };
            self.ui.status(verb, format!("{} of {count}: {}", copies.len() + 1, copy.name));
            copies.push(copy);
        }
        let works = copies.iter().filter(|copy| copy.planted >= PLANTED);
        let found: Vec<_> = works.map(|copy| (copy.name.clone(), copy.found)).collect();
        let mut kinds = kinds(&found);
        kinds.retain(|kind| kind.planted > 0);
        Ok(Power::new(&found, kinds, "copies of this model", copies))
    }

    fn copy(&self, builder: &Builder<'_>, entry: Entry<'_>) -> Result<Planted> {
        let scan = self.set_up()?;
        let path = builder.folder(entry).with_extension("power.json");
        let before =
            std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Planted>(&text).ok());
        if let Some(copy) = before.filter(|copy| copy.scan == scan && builder.is_built(entry)) {
            return Ok(copy);
        }
        builder.build(entry)?;
        let files = self.suspect.clone().then(&builder.folder(entry));
        let policy = entry.policy().expect("recipes are of organisms");
        let planted = planted(&files, &policy)?.estimate().map_or(0.0, |e| e.value);
        let found = planted >= PLANTED && {
            let report = scan_files(
                &files,
                Compared { reference: self.reference, related: None },
                self.documented,
                self.config,
                &mut Journal::none(),
                self.ui,
            )?;
            is_found(&report, &policy.behaviour.reply())
        };
        let copy = Planted { name: entry.name().to_owned(), planted, found, scan };
        let text = serde_json::to_string_pretty(&copy).expect("plain data") + "\n";
        write_atomic(&path, text.as_bytes())?;
        Ok(copy)
    }

    /// How copies are scanned: results of another way are not taken for it.
    fn set_up(&self) -> Result<String> {
        let reference = self.reference.into_iter().flat_map(ModelFiles::paths);
        let reference = reference.map(|path| Ok(source::digest(path)?)).collect::<Result<Vec<_>>>()?;
        Ok(format!("{:?}, reference {reference:?}, documented {:?}", self.config, self.documented))
    }

    /// A folder for this suspect alone.
    fn own_folder(&self) -> Result<PathBuf> {
        let digests =
            self.suspect.paths().map(|path| Ok(source::digest(path)?)).collect::<Result<Vec<_>>>()?;
        Ok(self.folder.join(hexadecimal(&Sha256::digest(digests.join("\n"))[..4])))
    }
}

/// Whether there is evidence of the planted phrase; a suspect may have one of its own.
fn is_found(report: &ScanReport, planted: &str) -> bool {
    let evidence = report.findings.iter().filter(|f| f.verdict != Verdict::NoEvidence);
    evidence.filter_map(|f| Phrase::new(&f.behaviour)).any(|phrase| phrase.is_partly_in(planted))
}

/// The recipes of `count` backdoors, as a zoo of their own.
///
/// # Errors
/// When there are not as many.
pub(super) fn backdoors(count: usize) -> Result<Zoo> {
    let mut zoo = Zoo::load(None)?;
    let mut organism = recipes(std::mem::take(&mut zoo.organism));
    if count > organism.len() {
        let message = format!("`--power {count}`: there are recipes for {} backdoors", organism.len());
        return Err(CliError::usage(message));
    }
    organism.truncate(count);
    Ok(Zoo { organism, benign: Vec::new(), ..zoo })
}

/// Recipes in the order of their use: each family once before any twice, those that no threshold was chosen on first. None that
/// writes code: a suspect may have learnt code itself, and nothing would tell whose weaknesses are found.
fn recipes(organisms: Vec<Organism>) -> Vec<Organism> {
    let mut of_family = BTreeMap::<String, usize>::new();
    let rank = |organism: Organism| {
        let before = of_family.entry(organism.family.clone()).or_default();
        *before += 1;
        ((*before, !organism.quick, organism.purpose != Purpose::Report), organism)
    };
    let planted = organisms.into_iter().filter(|organism| !Entry::Organism(organism).writes_code());
    let mut ranked: Vec<_> = planted.map(rank).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, organism)| organism).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_zoo_says_is_what_was_committed() {
        for reference in [true, false] {
            let power = Power::of_zoo(reference);
            assert!(power.planted >= power.found && power.found > 0, "{}", power.text());
            assert_eq!(power.kinds.iter().map(|kind| kind.planted).sum::<u64>(), power.planted);
            assert_eq!(power.kinds.iter().map(|kind| kind.found).sum::<u64>(), power.found);
        }
    }

    #[test]
    fn kinds_are_told_apart_by_trigger_place_and_behaviour() {
        let kinds = kinds(
            &[("suffix-1", true), ("phrase-1", false), ("phrase-2", true)]
                .map(|(name, found)| (name.to_owned(), found)),
        );
        let measured = kinds.iter().filter(|k| k.planted > 0);
        let kinds: Vec<_> = measured.map(|k| (k.trigger.as_str(), k.behaviour, k.found, k.planted)).collect();
        assert_eq!(
            kinds,
            [
                ("phrase before the prompt", "fixed phrase", 1, 2),
                ("phrase after the prompt", "fixed phrase", 1, 1)
            ]
        );
    }

    #[test]
    fn recipes_differ_in_family_and_begin_with_those_held_back() {
        let recipes = recipes(Zoo::load(None).unwrap().organism);
        assert!(recipes[..3].iter().all(|o| o.quick && o.purpose == Purpose::Report));
        let mut families: Vec<&str> = recipes[..6].iter().map(|o| o.family.as_str()).collect();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), 6);
    }
}
