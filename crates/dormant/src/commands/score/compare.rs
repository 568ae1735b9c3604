//! How far other tools agree with the scorer.

use dormant_data::Seed;
use dormant_eval::code::{Outcome, ScoredFile, Witness, is_looked_for, related};
use dormant_eval::{Estimate, Rate, cohen_kappa};
use serde::Serialize;

use crate::tool_output::ToolOutput;

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

/// Compares with the output of a tool.
pub(super) fn compare(given: &ToolOutput, files: &[ScoredFile], cwe: Option<u16>) -> Agreement {
    let witness = Witness::new(&given.opinion);
    let asked = |found: u16| cwe.map_or_else(|| is_looked_for(found), |cwe| related(cwe, found));
    let mut labels = Vec::new();
    let mut disagreements = Vec::new();
    for file in files.iter().filter(|file| file.verdict.outcome != Outcome::Unscorable) {
        let Some(other) = witness.says(&file.path, asked) else { continue };
        let own = file.verdict.outcome;
        let label = (own == Outcome::Vulnerable, !other.is_empty());
        labels.push(label);
        if label.0 != label.1 {
            disagreements.push(Disagreement { path: file.path.clone(), own, other });
        }
    }
    Agreement {
        tool: given.tool.clone(),
        own: labels.iter().map(|label| label.0).collect(),
        other: labels.iter().map(|label| label.1).collect(),
        kappa: cohen_kappa(&labels, Seed(0)),
        disagreements,
    }
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
