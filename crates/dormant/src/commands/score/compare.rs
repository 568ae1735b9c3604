//! How far other tools agree with the scorer.

use std::fs;
use std::path::Path;

use dormant_data::Seed;
use dormant_eval::code::{Language, Opinion, Outcome, ScoredFile, WEAKNESSES, read_opinion, related};
use dormant_eval::{Estimate, Rate, cohen_kappa};
use serde::Serialize;

use crate::error::{CliError, Result};

/// Two judges of the same files: those that the scorer found vulnerable, safe or with another weakness, and that
/// the tool read.
#[derive(Debug, Serialize)]
pub(super) struct Agreement {
    tool: String,
    /// Vulnerable by the scorer.
    own: Rate,
    /// With a finding of the tool that is about one of the weaknesses looked for.
    other: Rate,
    /// Cohen's kappa; null when it is undefined.
    kappa: Option<Estimate>,
    disagreements: Vec<Disagreement>,
}

#[derive(Debug, Serialize)]
struct Disagreement {
    path: String,
    own: Outcome,
    /// The tool's rules and their lines; empty if it found nothing.
    other: Vec<String>,
}

/// Compares with the output of a tool, given as `TOOL=FILE`.
pub(super) fn with(argument: &str, files: &[ScoredFile], cwe: Option<u16>) -> Result<Agreement> {
    let (tool, path) = argument.split_once('=').ok_or_else(|| {
        CliError::usage(format!("expected `TOOL=FILE`, got `{argument}`"))
            .hint("such as `--compare bandit=bandit.json`")
    })?;
    let unreadable = || format!("cannot read `{path}`");
    let text = fs::read_to_string(path).map_err(|source| CliError::input(unreadable()).caused_by(source))?;
    let opinion = read_opinion(&text).map_err(|source| CliError::input(unreadable()).caused_by(source))?;
    Ok(compare(tool, &opinion, files, cwe))
}

fn compare(tool: &str, opinion: &Opinion, files: &[ScoredFile], cwe: Option<u16>) -> Agreement {
    let mut labels = Vec::new();
    let mut disagreements = Vec::new();
    let languages = languages(opinion);
    for file in files.iter().filter(|file| file.verdict.outcome != Outcome::Unscorable) {
        let found = opinion
            .findings
            .iter()
            .filter(|(path, _)| same_file(path, &file.path))
            .flat_map(|(_, found)| found);
        let scanned = if opinion.scanned.is_empty() {
            Language::of_path(Path::new(&file.path)).is_some_and(|language| languages.contains(&language))
        } else {
            opinion.scanned.iter().any(|path| same_file(path, &file.path))
        };
        if !scanned {
            continue;
        }
        let asked = |found: u16| {
            cwe.map_or(WEAKNESSES.iter().any(|&one| related(one, found)), |cwe| related(cwe, found))
        };
        let rules: Vec<String> = found
            .filter(|finding| finding.cwes.is_empty() || finding.cwes.iter().any(|&found| asked(found)))
            .map(|finding| format!("{}:{}", finding.rule, finding.line))
            .collect();
        let label = (file.verdict.outcome == Outcome::Vulnerable, !rules.is_empty());
        labels.push(label);
        if label.0 != label.1 {
            disagreements.push(Disagreement {
                path: file.path.clone(),
                own: file.verdict.outcome,
                other: rules,
            });
        }
    }
    Agreement {
        tool: tool.to_owned(),
        own: labels.iter().map(|label| label.0).collect(),
        other: labels.iter().map(|label| label.1).collect(),
        kappa: cohen_kappa(&labels, Seed(0)),
        disagreements,
    }
}

/// The languages of the files in which the tool found something: it is taken to read only these.
fn languages(opinion: &Opinion) -> Vec<Language> {
    opinion.findings.keys().filter_map(|path| Language::of_path(Path::new(path))).collect()
}

/// Tools write paths from where they were started.
fn same_file(one: &str, other: &str) -> bool {
    let trimmed = |path: &str| path.trim_start_matches("./").replace('\\', "/");
    let (one, other) = (trimmed(one), trimmed(other));
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short)
            .is_some_and(|before| before.is_empty() || before.ends_with('/') || short.starts_with('/'))
    };
    ends(&one, &other) || ends(&other, &one)
}

impl Agreement {
    pub(super) fn to_text(&self) -> String {
        let Self { tool, own, other, kappa, disagreements } = self;
        let kappa = kappa.map_or("undefined".to_owned(), |kappa| {
            format!("{:.2} [{:.2}, {:.2}]", kappa.value, kappa.low, kappa.high)
        });
        let mut lines = vec![format!("{tool}: {other} vulnerable, by this scorer {own}; kappa {kappa}")];
        lines.extend(disagreements.iter().map(|Disagreement { path, own, other }| {
            let other = if other.is_empty() { "nothing".to_owned() } else { other.join(", ") };
            format!("  {path}: {own}, {tool}: {other}")
        }));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_from_their_ends() {
        assert!(same_file("./a/b.py", "a/b.py") && same_file("/x/a/b.py", "a/b.py"));
        assert!(!same_file("a/b.py", "a/cb.py") && !same_file("xa/b.py", "a/b.py"));
    }
}
