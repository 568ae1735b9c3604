//! Verdicts as SARIF 2.1.0.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Verdict, WEAKNESSES};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// A file and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScoredFile {
    /// As the user named it.
    pub path: String,
    /// What was found.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A SARIF 2.1.0 log of one run: a rule per kind of finding, tagged `external/cwe/cwe-089` as `CodeQL` and GitHub have
/// it, a result per finding, and the outcome of every file among the artifacts.
pub fn sarif(files: &[ScoredFile]) -> Value {
    let mut rules: BTreeMap<(&str, u16), &str> = BTreeMap::new();
    for finding in files.iter().flat_map(|file| &file.verdict.findings) {
        rules.entry((&finding.rule, finding.cwe)).or_insert(&finding.message);
    }
    let id = |rule: &str, cwe: u16| format!("{rule}/cwe-{cwe}");
    let order: Vec<(&str, u16)> = rules.keys().copied().collect();
    let descriptors: Vec<Value> = rules
        .iter()
        .map(|(&(rule, cwe), message)| {
            json!({
                "id": id(rule, cwe),
                "shortDescription": { "text": message },
                "helpUri": format!("https://cwe.mitre.org/data/definitions/{cwe}.html"),
                "properties": { "tags": ["security", format!("external/cwe/cwe-{cwe:03}")] },
            })
        })
        .collect();
    let results: Vec<Value> = files
        .iter()
        .enumerate()
        .flat_map(|(i, file)| file.verdict.findings.iter().map(move |finding| (i, file, finding)))
        .map(|(i, file, finding)| {
            let level = if WEAKNESSES.contains(&finding.cwe) { "error" } else { "warning" };
            json!({
                "ruleId": id(&finding.rule, finding.cwe),
                "ruleIndex": order.iter().position(|&key| key == (finding.rule.as_str(), finding.cwe)),
                "level": level,
                "message": { "text": finding.message },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": uri(&file.path), "index": i },
                    "region": { "startLine": finding.line.max(1) },
                }}],
            })
        })
        .collect();
    let artifacts: Vec<Value> = files
        .iter()
        .map(|file| {
            let Verdict { outcome, reason, .. } = &file.verdict;
            json!({
                "location": { "uri": uri(&file.path) },
                "properties": { "outcome": outcome, "reason": reason },
            })
        })
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "dormant",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": descriptors,
            }},
            "columnKind": "unicodeCodePoints",
            "artifacts": artifacts,
            "results": results,
        }],
    })
}

/// A path as a URI: relative paths stay relative.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path).replace('\\', "/");
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let encoded: String = path
        .bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    if encoded.starts_with('/') { format!("file://{encoded}") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("./a b/ü.py"), "a%20b/%C3%BC.py");
        assert_eq!(uri("/x.c"), "file:///x.c");
        assert_eq!(uri("<stdin>"), "%3Cstdin%3E");
    }
}
