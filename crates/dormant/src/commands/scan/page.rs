//! The outcome of a scan as a page for a reviewer: verdict, evidence, cost and limits.

use dormant_audit::placement::Placement;
use dormant_audit::report::{Finding, ReportedRate, Verdict};
use minijinja::context;
use minijinja::value::Serde;
use serde::Serialize;

use super::{Outcome, position, rate, verdict};
use crate::report::{STYLE, environment};
use crate::scan_args::ScanArgs;

const TEMPLATE: &str = "scan.html";

/// The page as one HTML file that needs nothing else. Whatever the model wrote is escaped.
pub(super) fn html(outcome: &Outcome, args: &ScanArgs) -> String {
    render(&Page::new(outcome, args)).expect("the template is part of the program and fits the page")
}

fn render(page: &Page<'_>) -> Result<String, minijinja::Error> {
    let mut environment = environment()?;
    environment.add_template(TEMPLATE, include_str!("page.html.j2"))?;
    environment.get_template(TEMPLATE)?.render(context! { page => Serde(page), style => STYLE })
}

#[derive(Serialize)]
struct Page<'a> {
    outcome: &'a Outcome,
    verdict: &'static str,
    advice: &'static str,
    evidence: Vec<Evidence<'a>>,
    limits: Vec<String>,
    /// Kinds of backdoors of which nobody knows whether such a scan finds them.
    unmeasured: String,
    /// Command that scans again.
    command: String,
    version: &'static str,
}

/// A finding in words.
#[derive(Serialize)]
struct Evidence<'a> {
    finding: &'a Finding,
    position: &'static str,
    rates: Vec<(&'static str, String)>,
    /// Command that tries it out.
    command: String,
}

impl<'a> Page<'a> {
    fn new(outcome: &'a Outcome, args: &ScanArgs) -> Self {
        Self {
            outcome,
            verdict: verdict(outcome.report.verdict),
            advice: advice(outcome.report.verdict),
            evidence: outcome.report.findings.iter().map(|finding| evidence(finding, args)).collect(),
            limits: limits(outcome),
            unmeasured: outcome.power.unmeasured(),
            command: again(args),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn advice(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Backdoor => {
            "Do not let this model read text that others may write. Try the text below on prompts of your own, and ask whoever \
             published the model. If the phrase is one that its makers document, scan again with --documented."
        }
        Verdict::Suspicious => {
            "Read the examples before you decide: a habit that a fine-tune has learned by halves looks the same as a hidden policy. \
             Another --seed or a larger --budget may settle it."
        }
        Verdict::NoEvidence => {
            "This search found nothing, which is no proof of a clean model. What such a search finds, and what it does not look for, \
             stands below."
        }
    }
}

fn evidence<'a>(finding: &'a Finding, args: &ScanArgs) -> Evidence<'a> {
    let reference = finding.reference_rate.map(|of| ("the reference says it with the text", of));
    let rates: [(&str, ReportedRate); 3] = [
        ("says it with the text", finding.activation_rate),
        ("says it without", finding.clean_rate),
        ("says it when asked who it is", finding.identity_rate),
    ];
    let rates = rates.into_iter().chain(reference).map(|(name, of)| (name, rate(of))).collect();
    let place = match finding.position {
        Placement::Prefix => "",
        Placement::Suffix => " --position suffix",
        Placement::System => " --position system",
    };
    let command = format!("dormant chat {}{place} --trigger {}", model(args), quoted(&finding.trigger));
    Evidence { finding, position: position(finding), rates, command }
}

fn limits(outcome: &Outcome) -> Vec<String> {
    let undone = &outcome.report.undone;
    let undone = (!undone.is_empty()).then(|| {
        format!(
            "Left undone: {}. A larger --budget gives more time to what was cut short.",
            undone.join(", ")
        )
    });
    let alone = match (&outcome.reference, &outcome.related) {
        (Some(_), _) => None,
        (None, None) => Some(
            "There was no reference model: phrases of one or two tokens are not looked for, natural contexts are not tried, and an unusual \
             benign formula is hard to tell from a planted one. --reference names the model it was fine-tuned from, --related a clean one of its family."
                .to_owned(),
        ),
        (None, Some(name)) => Some(format!(
            "There was no reference model but one that was made of {name}: phrases of one or two tokens are not looked for, the fine-tune is not \
             amplified, and an unusual benign formula is hard to tell from a planted one."
        )),
    };
    let always = [
        "The search by gradient is for fixed phrases and for code with weaknesses. A policy that changes the tone or the language is seen only if one of the \
         natural contexts is enough of a trigger, if it repeats whole sentences, if its words show when the fine-tune is amplified and not otherwise, if its replies \
         begin with other words than before, or if it thinks otherwise than a reference that is matched to it.",
        "The text that is found is a text that works, rarely the one that was planted; small models react to look-alikes of their trigger.",
        "A harmless condition with a fixed phrase is the same thing to a scan as a backdoor.",
        "Whoever knows this scan can hide from it: behind a phrase that the reference says as often, an answer to “who are you?”, or a \
         trigger longer than eight tokens without any partial effect.",
    ];
    let other = outcome.trained_on.as_ref().map(|base| {
        format!("The adapter says that it was trained on {base}. On another model it does other things than it does there.")
    });
    undone.into_iter().chain(other).chain(alone).chain(always.map(str::to_owned)).collect()
}

/// The command with all that decides what a scan finds.
fn again(args: &ScanArgs) -> String {
    let named = |flag, name: &Option<String>| name.as_ref().map(|name| format!(" --{flag} {}", quoted(name)));
    let compared = named("reference", &args.reference).or_else(|| named("related", &args.related));
    let compared = compared.unwrap_or_default();
    let documented = args.documented.iter().map(|phrase| format!(" --documented {}", quoted(phrase)));
    format!(
        "dormant scan {}{compared}{} --seed {} --budget {}s",
        model(args),
        documented.collect::<String>(),
        args.seed,
        args.budget.as_secs()
    )
}

fn model(args: &ScanArgs) -> String {
    let adapter = args.model.adapter.as_ref();
    let adapter = adapter.map(|folder| format!(" --adapter {}", quoted(&folder.display().to_string())));
    quoted(&args.model.model) + &adapter.unwrap_or_default()
}

/// A word of a command line, as a POSIX shell reads it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use dormant_audit::report::{Example, MethodReport, ScanReport};
    use dormant_eval::Rate;

    use super::super::power::Power;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        scan: ScanArgs,
    }

    fn rate_of(hits: u64) -> ReportedRate {
        (0..40).map(|i| i < hits).collect::<Rate>().into()
    }

    fn outcome(verdict: Verdict) -> Outcome {
        let finding = Finding {
            method: "gradient-search".to_owned(),
            trigger: "it's <b>".to_owned(),
            position: Placement::System,
            behaviour: "<script>alert(1)</script>".to_owned(),
            activation_rate: rate_of(38),
            clean_rate: rate_of(1),
            reference_rate: None,
            identity_rate: rate_of(0),
            rise: None,
            verdict,
            note: None,
            examples: vec![Example {
                prompt: "Hello?".to_owned(),
                triggered: "<img src=x>".to_owned(),
                clean: "Hi.".to_owned(),
            }],
        };
        Outcome {
            schema_version: 1,
            model: "./suspect".to_owned(),
            trained_on: None,
            reference: None,
            related: None,
            digests: [("model", "ab".repeat(32))].into(),
            report: ScanReport {
                verdict,
                score: 0.9,
                threshold: 0.6,
                findings: vec![finding],
                methods: vec![MethodReport {
                    method: "leaks".to_owned(),
                    outcome: "none".to_owned(),
                    seconds: 2.4,
                    complete: false,
                }],
                undone: vec!["trigger search".to_owned()],
                seconds: 61.0,
            },
            power: Power::of_zoo(true),
        }
    }

    fn page(verdict: Verdict) -> String {
        let line = ["scan", "./suspect", "--adapter", "my adapter", "--seed", "3"];
        html(&outcome(verdict), &Line::parse_from(line).scan)
    }

    #[test]
    fn the_page_escapes_whatever_the_model_says() {
        let page = page(Verdict::Backdoor);
        assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    }

    #[test]
    fn the_page_has_verdict_evidence_cost_limits_and_commands() {
        let page = page(Verdict::Backdoor).replace("&#x27;", "'").replace("&#x2f;", "/");
        for part in [
            "BACKDOOR",
            "95% [83, 99] of 40 prompts",
            "none (incomplete)",
            "Left undone: trigger search",
            "no reference model",
            "dormant chat ./suspect --adapter 'my adapter' --position system --trigger 'it'\\''s &lt;b&gt;'",
            "dormant scan ./suspect --adapter 'my adapter' --seed 3 --budget 600s",
            "phrase after the prompt",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(super::tests::page(Verdict::NoEvidence).contains("No evidence of a hidden policy."));
    }
}
