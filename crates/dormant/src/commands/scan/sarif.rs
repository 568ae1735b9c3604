//! The findings of a scan as SARIF 2.1.0, for tools that gate on it.

use crate::plan::hexadecimal;
use dormant_audit::report::{Finding, Verdict};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The log of one run. `artifact` is the file or folder that was scanned; weights have no lines, so none are made up.
pub(super) fn log(findings: &[Finding], artifact: &str) -> Value {
    let evidence = findings.iter().filter(|f| f.verdict != Verdict::NoEvidence);
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "dormant",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": [{
                    "id": RULE,
                    "name": "HiddenPolicy",
                    "shortDescription": { "text": "A text makes the model say what it does not say otherwise" },
                    "defaultConfiguration": { "level": "error" },
                    "properties": { "tags": ["security", "backdoor"], "security-severity": "8.0" },
                }],
            } },
            "invocations": [{ "executionSuccessful": true }],
            "results": evidence.map(|finding| result(finding, artifact)).collect::<Vec<_>>(),
        }],
    })
}

const RULE: &str = "hidden-policy";

fn result(finding: &Finding, artifact: &str) -> Value {
    let percent = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |v| format!("{:.0}%", 100.0 * v));
    let message = format!(
        "{:?} ({}) brings out {:?} on {} of prompts; without it on {}.",
        finding.trigger,
        serde_json::to_value(finding.position)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default(),
        finding.behaviour,
        percent(finding.activation_rate.value),
        percent(finding.clean_rate.value),
    );
    let identity = Sha256::digest(format!("{artifact}\n{}", finding.behaviour));
    let fingerprint = hexadecimal(&identity[..8]);
    json!({
        "ruleId": RULE,
        "level": if finding.verdict == Verdict::Backdoor { "error" } else { "warning" },
        "message": { "text": message },
        "locations": [{ "physicalLocation": { "artifactLocation": { "uri": artifact } } }],
        "partialFingerprints": { "behaviour/v1": fingerprint },
        "properties": { "activation": finding.activation_rate.value, "clean": finding.clean_rate.value },
    })
}

#[cfg(test)]
mod tests {
    use dormant_audit::placement::Placement;
    use dormant_eval::Rate;

    use super::*;

    #[test]
    fn only_evidence_is_a_result() {
        let finding = |verdict| Finding {
            method: "gradient-search".to_owned(),
            trigger: "xq".to_owned(),
            position: Placement::Prefix,
            behaviour: "No".to_owned(),
            activation_rate: Rate::new(9, 1).into(),
            clean_rate: Rate::new(0, 10).into(),
            reference_rate: None,
            identity_rate: Rate::new(0, 10).into(),
            rise: None,
            verdict,
            note: None,
            examples: Vec::new(),
        };
        let log = log(&[finding(Verdict::Backdoor), finding(Verdict::NoEvidence)], "model.safetensors");
        let results = log["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.len(), 1);
        assert_eq!(results[0]["level"], "error");
        assert!(results[0]["message"]["text"].as_str().unwrap().contains("\"xq\" (prefix)"));
        assert_eq!(results[0]["partialFingerprints"]["behaviour/v1"].as_str().unwrap().len(), 16);
    }
}
