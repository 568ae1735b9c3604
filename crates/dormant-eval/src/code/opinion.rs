//! What other tools found: JSON of Bandit and Semgrep, SARIF of any tool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use super::Language;

/// The findings of another tool, by file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opinion {
    /// Weaknesses (CWE numbers, as far as the tool says them) by file name as the tool wrote it.
    pub findings: BTreeMap<String, Vec<OtherFinding>>,
    /// The files that the tool says it read; empty if it does not say.
    pub scanned: BTreeSet<String>,
}

/// A finding of another tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherFinding {
    /// Its weaknesses; empty if the tool does not say.
    pub cwes: BTreeSet<u16>,
    /// The line, from 1; 0 if the tool does not say.
    pub line: u64,
    /// The tool's name of its rule.
    pub rule: String,
}

/// Why a tool's output cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpinionError {
    /// It is not JSON.
    #[error("expected the JSON or SARIF that the tool wrote")]
    Json(#[from] serde_json::Error),
    /// It is JSON of another kind.
    #[error("expected an object with `runs` (SARIF) or `results` (Bandit, Semgrep), got neither")]
    Unknown,
}

/// Reads the output of a tool; the format is found by its shape.
///
/// # Errors
/// [`OpinionError`] if it is no JSON, or of another shape.
pub fn read_opinion(text: &str) -> Result<Opinion, OpinionError> {
    let json: Value = serde_json::from_str(text)?;
    if let Some(runs) = json["runs"].as_array() {
        let mut opinion = Opinion::default();
        runs.iter().for_each(|run| read_run(run, &mut opinion));
        Ok(opinion)
    } else if let Some(results) = json["results"].as_array() {
        Ok(read_results(&json, results))
    } else {
        Err(OpinionError::Unknown)
    }
}

/// An opinion that can be asked about single files. Tools write paths from where they were started, so two paths are
/// of the same file if one is the end of the other.
#[derive(Debug)]
pub struct Witness<'a> {
    opinion: &'a Opinion,
    /// The paths that the tool wrote, by file name.
    paths: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// The languages of the files in which it found something: if it does not say what it read, these.
    languages: BTreeSet<Language>,
}

impl<'a> Witness<'a> {
    /// Prepares an opinion for questions.
    pub fn new(opinion: &'a Opinion) -> Self {
        let mut paths: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for path in opinion.findings.keys().chain(&opinion.scanned) {
            paths.entry(file_name(path)).or_default().insert(path);
        }
        let languages =
            opinion.findings.keys().filter_map(|path| Language::of_path(Path::new(path))).collect();
        Self { opinion, paths, languages }
    }

    /// The tool's rules, with their lines, that a file breaks, of those about a weakness that `counts` and those that name
    /// none. `None` if the tool did not read the file.
    pub fn says(&self, path: &str, counts: impl Fn(u16) -> bool) -> Option<Vec<String>> {
        let same: Vec<&str> = self
            .paths
            .get(file_name(path))
            .into_iter()
            .flatten()
            .copied()
            .filter(|p| same_file(p, path))
            .collect();
        let is_read = if self.opinion.scanned.is_empty() {
            Language::of_path(Path::new(path)).is_some_and(|language| self.languages.contains(&language))
        } else {
            same.iter().any(|path| self.opinion.scanned.contains(*path))
        };
        let found = same.iter().filter_map(|path| self.opinion.findings.get(*path)).flatten();
        let rules = found
            .filter(|finding| finding.cwes.is_empty() || finding.cwes.iter().any(|&cwe| counts(cwe)))
            .map(|finding| format!("{}:{}", finding.rule, finding.line));
        is_read.then(|| rules.collect())
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn same_file(one: &str, other: &str) -> bool {
    let trimmed = |path: &str| path.trim_start_matches("./").replace('\\', "/");
    let (one, other) = (trimmed(one), trimmed(other));
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short)
            .is_some_and(|before| before.is_empty() || before.ends_with('/') || short.starts_with('/'))
    };
    ends(&one, &other) || ends(&other, &one)
}

impl Opinion {
    fn add(&mut self, file: &str, finding: OtherFinding) {
        self.findings.entry(file.to_owned()).or_default().push(finding);
    }
}

fn read_results(json: &Value, results: &[Value]) -> Opinion {
    let mut opinion = Opinion::default();
    for result in results {
        let bandit = result.get("test_id").is_some();
        let text = |key: &str| result[key].as_str().unwrap_or_default();
        let mut cwes = BTreeSet::new();
        numbers(&result["issue_cwe"]["id"], &mut cwes);
        numbers(&result["extra"]["metadata"]["cwe"], &mut cwes);
        numbers(&result["extra"]["metadata"]["cwe_id"], &mut cwes);
        let (file, rule) = if bandit { ("filename", "test_id") } else { ("path", "check_id") };
        let line = result["line_number"].as_u64().or(result["start"]["line"].as_u64()).unwrap_or(0);
        opinion.add(text(file), OtherFinding { cwes, line, rule: text(rule).to_owned() });
    }
    if let Some(metrics) = json["metrics"].as_object() {
        opinion.scanned.extend(metrics.keys().filter(|key| *key != "_totals").cloned());
    }
    let scanned = json["paths"]["scanned"].as_array().into_iter().flatten();
    opinion.scanned.extend(scanned.filter_map(Value::as_str).map(str::to_owned));
    opinion
}

fn read_run(run: &Value, opinion: &mut Opinion) {
    let driver = &run["tool"]["driver"];
    let extensions = run["tool"]["extensions"].as_array().into_iter().flatten();
    let rules: Vec<&Value> = std::iter::once(driver)
        .chain(extensions)
        .flat_map(|tool| tool["rules"].as_array().into_iter().flatten())
        .collect();
    for result in run["results"].as_array().into_iter().flatten() {
        let id = result["ruleId"].as_str().or(result["rule"]["id"].as_str()).unwrap_or_default();
        let rule = rules.iter().find(|rule| rule["id"].as_str() == Some(id));
        let mut cwes = BTreeSet::new();
        if let Some(rule) = rule {
            numbers(&rule["properties"]["tags"], &mut cwes);
            numbers(&rule["properties"]["cwe"], &mut cwes);
            related(&rule["relationships"], &mut cwes);
        }
        numbers(&result["properties"]["tags"], &mut cwes);
        taxa(&result["taxa"], &mut cwes);
        // Remarks such as "a statically sized array" are no findings; that there is one tells what the tool reads.
        let is_note = matches!(result["level"].as_str(), Some("note" | "none"));
        for location in result["locations"].as_array().into_iter().flatten() {
            let place = &location["physicalLocation"];
            let file = place["artifactLocation"]["uri"].as_str().unwrap_or_default();
            let line = place["region"]["startLine"].as_u64().unwrap_or(0);
            let file = percent_decoded(file.strip_prefix("file://").unwrap_or(file));
            if is_note {
                opinion.findings.entry(file).or_default();
                continue;
            }
            opinion.add(&file, OtherFinding { cwes: cwes.clone(), line, rule: id.to_owned() });
        }
    }
    for artifact in run["artifacts"].as_array().into_iter().flatten() {
        if let Some(uri) = artifact["location"]["uri"].as_str() {
            opinion.scanned.insert(percent_decoded(uri.strip_prefix("file://").unwrap_or(uri)));
        }
    }
}

fn related(relationships: &Value, cwes: &mut BTreeSet<u16>) {
    for relationship in relationships.as_array().into_iter().flatten() {
        numbers(&relationship["target"]["id"], cwes);
    }
}

fn taxa(taxa: &Value, cwes: &mut BTreeSet<u16>) {
    for taxon in taxa.as_array().into_iter().flatten() {
        numbers(&taxon["id"], cwes);
    }
}

/// The CWE numbers in a number, in text such as `CWE-89: …` or `external/cwe/cwe-089`, or in a list of these.
fn numbers(value: &Value, cwes: &mut BTreeSet<u16>) {
    match value {
        Value::Number(number) => cwes.extend(number.as_u64().and_then(|number| u16::try_from(number).ok())),
        Value::String(text) => cwes.extend(numbers_in(text)),
        Value::Array(values) => values.iter().for_each(|value| numbers(value, cwes)),
        _ => {}
    }
}

fn numbers_in(text: &str) -> Vec<u16> {
    let lower = text.to_ascii_lowercase();
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    if lower.parse::<u16>().is_ok() {
        return lower.parse().into_iter().collect();
    }
    lower.split("cwe-").skip(1).filter_map(digits).collect()
}

fn percent_decoded(uri: &str) -> String {
    let bytes = uri.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = uri
            .get(i + 1..i + 3)
            .filter(|_| bytes[i] == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = hex {
            out.push(byte);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bandit_and_semgrep_json() {
        let bandit = r#"{"metrics": {"_totals": {}, "a.py": {}, "b.py": {}},
            "results": [{"filename": "a.py", "line_number": 3, "test_id": "B608", "issue_cwe": {"id": 89}}]}"#;
        let opinion = read_opinion(bandit).unwrap();
        assert_eq!(opinion.findings["a.py"][0].cwes, BTreeSet::from([89]));
        assert_eq!(opinion.scanned.len(), 2);
        let semgrep = r#"{"results": [{"path": "a.c", "check_id": "x", "start": {"line": 7},
            "extra": {"metadata": {"cwe": ["CWE-120: Buffer Copy"]}}}], "paths": {"scanned": ["a.c"]}}"#;
        let opinion = read_opinion(semgrep).unwrap();
        assert_eq!(
            (opinion.findings["a.c"][0].line, &opinion.findings["a.c"][0].cwes),
            (7, &BTreeSet::from([120]))
        );
    }

    #[test]
    fn sarif_of_codeql_and_flawfinder() {
        let sarif = r#"{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "t", "rules": [
                {"id": "py/sql", "properties": {"tags": ["security", "external/cwe/cwe-089"]}},
                {"id": "FF1", "relationships": [{"target": {"id": "CWE-120"}}]}]}},
            "results": [
                {"ruleId": "py/sql", "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a%20b.py"}, "region": {"startLine": 2}}}]},
                {"ruleId": "FF1", "locations": [{"physicalLocation": {"artifactLocation": {"uri": "file:///c.c"}}}]}]}]}"#;
        let opinion = read_opinion(sarif).unwrap();
        assert_eq!(opinion.findings["a b.py"][0].cwes, BTreeSet::from([89]));
        assert_eq!(opinion.findings["/c.c"][0].cwes, BTreeSet::from([120]));
    }

    #[test]
    fn notes_are_no_findings() {
        let sarif = r#"{"runs": [{"tool": {"driver": {"rules": []}}, "results": [{"ruleId": "FF1", "level": "note",
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.c"}}}]}]}]}"#;
        let opinion = read_opinion(sarif).unwrap();
        assert_eq!(Witness::new(&opinion).says("a.c", |_| true), Some(Vec::new()));
    }

    #[test]
    fn paths_are_compared_from_their_ends() {
        assert!(same_file("./a/b.py", "a/b.py") && same_file("/x/a/b.py", "a/b.py"));
        assert!(!same_file("a/b.py", "a/cb.py") && !same_file("xa/b.py", "a/b.py"));
    }

    #[test]
    fn a_witness_tells_nothing_found_from_not_read() {
        let found = |rule: &str, cwe| OtherFinding { cwes: [cwe].into(), line: 3, rule: rule.to_owned() };
        let mut opinion = Opinion::default();
        opinion.add("code/a.py", found("B608", 89));
        opinion.add("code/a.py", found("B101", 703));
        let sql = |cwe| cwe == 89;
        assert_eq!(Witness::new(&opinion).says("a.py", sql), Some(vec!["B608:3".to_owned()]));
        assert_eq!(Witness::new(&opinion).says("b.py", sql), Some(Vec::new()));
        assert_eq!(Witness::new(&opinion).says("b.c", sql), None);
        opinion.scanned.insert("code/a.py".to_owned());
        assert_eq!(Witness::new(&opinion).says("b.py", sql), None);
        assert!(Witness::new(&opinion).says("code/a.py", sql).is_some());
    }

    #[test]
    fn other_json_is_refused() {
        assert!(matches!(read_opinion("{}"), Err(OpinionError::Unknown)));
        assert!(matches!(read_opinion("<sarif/>"), Err(OpinionError::Json(_))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = read_opinion(&text);
        }

        #[test]
        fn uris_decode(name in "\\PC{0,40}") {
            let _ = percent_decoded(&name);
        }
    }
}
