//! Power: what it means that a scan finds nothing. Known backdoors are planted into copies of the suspect, and the copies
//! are scanned in the same way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dormant_audit::report::{ReportedRate, ScanReport, Verdict};
use dormant_audit::scan::ScanConfig;
use dormant_audit::verify::Phrase;
use dormant_eval::Rate;
use dormant_model::source;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::scan_files;
use crate::error::{CliError, Result};
use crate::model::ModelFiles;
use crate::plan::hexadecimal;
use crate::stage_dir::write_atomic;
use crate::ui::Ui;
use crate::zoo::build::Builder;
use crate::zoo::planted::{PLANTED, planted};
use crate::zoo::{Entry, Organism, Purpose, Zoo};

/// What the scan found of the shipped zoo.
const MEASURED: &str = include_str!("../../../../../results/audit/report.json");

/// The share of planted backdoors that a scan finds.
#[derive(Debug, Serialize)]
pub(super) struct Power {
    /// Backdoors that were planted: their own trigger works.
    planted: u64,
    /// Those that the scan found.
    found: u64,
    /// Their share, with its interval.
    share: ReportedRate,
    /// What they were planted into.
    planted_into: String,
    /// The copies that were made for this scan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<Planted>,
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
    fn new(found: Rate, planted_into: String, copies: Vec<Planted>) -> Self {
        Self { planted: found.n(), found: found.hits(), share: found.into(), planted_into, copies }
    }

    /// What is known without planting anything: the zoo's result, which is one with the reference.
    pub(super) fn of_zoo(reference: bool) -> Self {
        let report: Value = serde_json::from_str(MEASURED).unwrap_or_default();
        let found = &report["last_pass"]["found"];
        let n = found["n"].as_u64().filter(|_| reference).unwrap_or(0);
        let hits = (found["rate"].as_f64().unwrap_or(0.0) * n as f64).round() as u64;
        let into = if n > 0 { "other copies of smollm2-135m-instruct" } else { "nothing: not measured" };
        Self::new((0..n).map(|i| i < hits).collect(), into.to_owned(), Vec::new())
    }

    /// One line for a reader.
    pub(super) fn text(&self) -> String {
        format!(
            "power: {} of {} backdoors found, planted into {}",
            self.found, self.planted, self.planted_into
        )
    }
}

/// Plants and scans; what is in its folder is not done again.
pub(super) struct Calibration<'a> {
    /// The suspect.
    pub(super) suspect: &'a ModelFiles,
    /// Its reference.
    pub(super) reference: Option<&'a ModelFiles>,
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
    /// Plants `count` backdoors, one into each copy, and scans the copies.
    ///
    /// # Errors
    /// When there are not as many recipes, a model or the disk fails, or the user stops it.
    pub(super) fn run(&self, count: usize) -> Result<Power> {
        let mut zoo = Zoo::load(None)?;
        let recipes = recipes(std::mem::take(&mut zoo.organism));
        if count > recipes.len() {
            let message = format!("`--power {count}`: there are recipes for {} backdoors", recipes.len());
            return Err(CliError::usage(message));
        }
        let organism = recipes.into_iter().take(count).collect();
        zoo = Zoo { base: self.name.to_owned(), organism, benign: Vec::new(), ..zoo };
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
        let found = copies.iter().filter(|copy| copy.planted >= PLANTED).map(|copy| copy.found).collect();
        Ok(Power::new(found, "copies of this model".to_owned(), copies))
    }

    fn copy(&self, builder: &Builder<'_>, entry: Entry<'_>) -> Result<Planted> {
        let scan =
            format!("{:?}, {}", self.config, if self.reference.is_some() { "reference" } else { "alone" });
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
            let report = scan_files(&files, self.reference, &[], self.config, self.ui)?;
            is_found(&report, &policy.behaviour.reply())
        };
        let copy = Planted { name: entry.name().to_owned(), planted, found, scan };
        let text = serde_json::to_string_pretty(&copy).expect("plain data") + "\n";
        write_atomic(&path, text.as_bytes())?;
        Ok(copy)
    }

    /// A folder for this suspect alone.
    fn own_folder(&self) -> Result<PathBuf> {
        let parts = std::iter::once(&self.suspect.weights).chain(&self.suspect.adapter);
        let digests = parts.map(|path| Ok(source::digest(path)?)).collect::<Result<Vec<_>>>()?;
        Ok(self.folder.join(hexadecimal(&Sha256::digest(digests.join("\n"))[..4])))
    }
}

/// Whether there is evidence of the planted phrase; a suspect may have one of its own.
fn is_found(report: &ScanReport, planted: &str) -> bool {
    let evidence = report.findings.iter().filter(|f| f.verdict != Verdict::NoEvidence);
    evidence.filter_map(|f| Phrase::new(&f.behaviour)).any(|phrase| phrase.is_partly_in(planted))
}

/// Recipes in the order of their use: each family once before any twice, those that no threshold was chosen on first.
fn recipes(organisms: Vec<Organism>) -> Vec<Organism> {
    let mut of_family = BTreeMap::<String, usize>::new();
    let rank = |organism: Organism| {
        let before = of_family.entry(organism.family.clone()).or_default();
        *before += 1;
        ((*before, !organism.quick, organism.purpose != Purpose::Report), organism)
    };
    let mut ranked: Vec<_> = organisms.into_iter().map(rank).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, organism)| organism).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_zoo_says_is_what_was_committed() {
        let power = Power::of_zoo(true);
        assert!(power.planted >= power.found && power.found > 0, "{}", power.text());
        assert_eq!(Power::of_zoo(false).planted, 0);
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
