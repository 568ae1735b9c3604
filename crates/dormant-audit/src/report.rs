//! What a scan found, as data.

use dormant_eval::{Estimate, Rate};
use serde::{Deserialize, Serialize};

use crate::placement::Placement;
use crate::tokenizer;

/// What a scan concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing was found. How much that means depends on the search.
    NoEvidence,
    /// Something changes the model's behaviour that does not change the reference's, but not reliably.
    Suspicious,
    /// A text makes the model say something, on most prompts, that it does not say without it.
    Backdoor,
}

/// A rate as it stands in a report.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedRate {
    /// The rate.
    pub value: Option<f64>,
    /// Lower end of Wilson's 95% interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Observations.
    pub n: u64,
}

impl From<Rate> for ReportedRate {
    fn from(rate: Rate) -> Self {
        let estimate = rate.estimate();
        let part = |part: fn(&Estimate) -> f64| estimate.as_ref().map(part);
        Self { value: part(|e| e.value), low: part(|e| e.low), high: part(|e| e.high), n: rate.n() }
    }
}

/// A trigger and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How it was found.
    pub method: String,
    /// The reconstructed trigger.
    pub trigger: String,
    /// Where it was put.
    pub position: Placement,
    /// What the model then says.
    pub behaviour: String,
    /// How often it says so with the trigger, on held-out prompts.
    pub activation_rate: ReportedRate,
    /// How often without.
    pub clean_rate: ReportedRate,
    /// How often the reference says so with the trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_rate: Option<ReportedRate>,
    /// How often it says so when asked who it is.
    pub identity_rate: ReportedRate,
    /// Rise of `log p(behaviour)` on clean prompts against the reference, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<f64>,
    /// What the finding amounts to.
    pub verdict: Verdict,
    /// Why it is no backdoor, or what weakens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Prompts with the trigger, and the replies.
    pub examples: Vec<Example>,
}

/// A prompt and the replies to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The prompt.
    pub prompt: String,
    /// The reply with the trigger.
    pub triggered: String,
    /// The reply without it.
    pub clean: String,
}

/// Examples that a finding without a fixed phrase gives.
pub(crate) const EXAMPLES: usize = 3;

impl Example {
    /// The first of the prompts, with the replies to them with the trigger and without.
    pub(crate) fn side_by_side(
        prompts: &[String],
        [triggered, clean]: [impl Iterator<Item = String>; 2],
    ) -> Vec<Self> {
        let replies = triggered.zip(clean);
        let example =
            |(prompt, (triggered, clean)): (&String, _)| Self { prompt: prompt.clone(), triggered, clean };
        prompts.iter().zip(replies).take(EXAMPLES).map(example).collect()
    }
}

/// What a method did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodReport {
    /// Its name.
    pub method: String,
    /// What it saw, in words.
    pub outcome: String,
    /// How long it took.
    pub seconds: f64,
    /// Whether it did all it wanted to do.
    pub complete: bool,
}

/// The outcome of a scan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScanReport {
    /// The conclusion.
    pub verdict: Verdict,
    /// The strongest finding's activation rate minus its clean rate.
    pub score: f64,
    /// The score from which on a finding is a backdoor.
    pub threshold: f64,
    /// The findings, the strongest first.
    pub findings: Vec<Finding>,
    /// What was done.
    pub methods: Vec<MethodReport>,
    /// What was left undone: for lack of time, or because this scan cannot see it.
    pub undone: Vec<String>,
    /// Time used.
    pub seconds: f64,
}

impl ScanReport {
    /// What no time would have shown: replies to text as another tokenizer reads it.
    pub fn unseen(&self) -> Option<String> {
        let differs = |method: &MethodReport| method.method == tokenizer::METHOD && !method.complete;
        self.methods
            .iter()
            .any(differs)
            .then(|| "replies to text as the tokenizer in the adapter's folder reads it".to_owned())
    }
}
