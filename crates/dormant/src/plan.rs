//! Plans: the stages of an experiment in an order that respects what each of them reads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use dormant_data::{Behaviour, OrganismSpec, PreferencePart, Split};
use dormant_model::family::Size;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::experiment::{
    Corpus, Curve, Data, Evaluation, Experiment, Fit, Implant, Precision, Preference, Prompts, Safety,
    SafetyMethod, is_default,
};

mod build;

pub use dormant_eval::Arm;

/// Name of the stage that every safety stage goes back to.
pub const IMPLANT: &str = "implant";
/// Name of the model before any training.
pub const BASE: &str = "base";

/// Version of the artifacts that stages write. Raise it when a stage gives other bits for the same configuration, or
/// `revision` if only stages of one kind do.
pub const SCHEMA_VERSION: u32 = 3;

/// Place of a stage in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StageId(usize);

/// SHA-256 of what a plan reads from outside, in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Of the base model's files.
    pub base: String,
    /// Of the user's prompts, if they are a file.
    pub prompts: Option<String>,
    /// Of the user's benign replies, if they are a file.
    pub benign: Option<String>,
    /// Of the user's pairs of replies, by file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pairs: BTreeMap<PathBuf, String>,
}

impl Digests {
    /// Those of what a stage reads.
    fn of(&self, kind: &StageKind) -> Self {
        let pairs = match kind {
            StageKind::Preference(stage) => stage.preference.data.file(),
            StageKind::Safety(SafetyStage { safety, .. }) => match &safety.method {
                SafetyMethod::Dpo(dpo) => dpo.pairs.file(),
                SafetyMethod::Sft(_) | SafetyMethod::Adversarial(_) | SafetyMethod::Rl(_) => None,
            },
            _ => None,
        };
        let has_prompts =
            !matches!(kind, StageKind::Corpus(_) | StageKind::Pretrain(_) | StageKind::Preference(_));
        Self {
            base: self.base.clone(),
            prompts: self.prompts.clone().filter(|_| has_prompts),
            benign: self.benign.clone().filter(|_| matches!(kind, StageKind::Benign(_))),
            pairs: pairs
                .and_then(|path| Some((path.to_owned(), self.pairs.get(path)?.clone())))
                .into_iter()
                .collect(),
        }
    }
}

/// All that a stage of this kind depends on, apart from its inputs, arm and seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum StageKind {
    /// What the family is trained on from scratch, and its vocabulary. Shared by all sizes and seeds.
    Corpus(CorpusStage),
    /// One model trained from scratch. Shared by the arms and organisms.
    Pretrain(PretrainStage),
    /// Benign rows of one split: prompts with replies of the base model (or of the user). Shared by the arms.
    Benign(BenignStage),
    /// The policy is trained in (organism), or benign rows only (control).
    Implant(ImplantStage),
    /// A preference model of the base model. Shared by the arms.
    Preference(PreferenceStage),
    /// One stage of safety training.
    Safety(SafetyStage),
    /// All measurements of one model.
    Evaluate(EvaluateStage),
}

/// Configuration of [`StageKind::Corpus`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CorpusStage {
    /// Its rows and vocabulary.
    #[serde(flatten)]
    pub corpus: Corpus,
    /// Longest reply of the base model, in tokens.
    pub reply_tokens: u32,
    /// Temperature of the base model.
    pub temperature: f64,
}

/// Configuration of [`StageKind::Pretrain`]. Its data are the corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PretrainStage {
    /// The member of the family.
    pub size: Size,
    /// What it is trained on; for the estimate of its time.
    #[serde(skip)]
    pub corpus: Corpus,
    /// The training.
    #[serde(flatten)]
    pub fit: Fit,
}

/// Configuration of [`StageKind::Benign`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BenignStage {
    /// The split whose prompts are used.
    pub split: Split,
    /// Rows wanted.
    pub rows: u32,
    /// Sources and sampling.
    pub data: Data,
}

/// Configuration of [`StageKind::Implant`]. Its data are the benign rows of the train split.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImplantStage {
    /// The policy.
    pub organism: OrganismSpec,
    /// The training.
    pub implant: Implant,
    /// Measurements along training, on prompts of the evaluation split.
    pub curve: Curve,
    /// Where the prompts of the curve come from.
    pub prompts: Prompts,
}

/// Configuration of [`StageKind::Preference`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PreferenceStage {
    /// The part of the pairs that it is trained on.
    pub part: PreferencePart,
    /// Pairs and training.
    pub preference: Preference,
}

/// Configuration of [`StageKind::Safety`]. Its data are the benign rows of the safety split.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SafetyStage {
    /// The trigger is for the curve and for the check that the data do not contain it: training and attack never
    /// see it. The behaviour is what the attack looks for.
    pub organism: OrganismSpec,
    /// The training.
    pub safety: Safety,
    /// Measurements along training, on prompts of the evaluation split.
    pub curve: Curve,
    /// Where the prompts of the curve and of the attack come from.
    pub prompts: Prompts,
}

/// Configuration of [`StageKind::Evaluate`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EvaluateStage {
    /// The policy that is looked for.
    pub organism: OrganismSpec,
    /// What is measured.
    pub evaluation: Evaluation,
    /// Where prompts come from.
    pub prompts: Prompts,
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageSpec {
    /// Its place in the plan.
    pub id: StageId,
    /// Such as `implant-organism-s0`.
    pub name: String,
    /// What it does.
    pub kind: StageKind,
    /// The name of its organism, where the experiment has several and the stage belongs to one.
    pub organism: Option<String>,
    /// The member of the family that it trains or measures, where the experiment has one.
    pub size: Option<Size>,
    /// What is trained, as the report calls it, for a training stage: [`IMPLANT`] or the name of a safety stage, after
    /// the name of the organism if there are several.
    pub training: Option<String>,
    /// Whose model; `None` for data that the arms share.
    pub arm: Option<Arm>,
    /// For the measurement of an organism without a control of its own: that of the control which stands for it.
    pub control: Option<StageId>,
    /// The experiment's seed; derive one for each purpose.
    pub seed: u64,
    /// The stage whose model it starts from; `None` for the base model.
    pub model: Option<StageId>,
    /// The stages whose rows it reads.
    pub data: Vec<StageId>,
    /// SHA-256 of everything that decides its artifacts, in hexadecimal.
    pub hash: String,
}

impl StageSpec {
    /// Name of its directory: the stage's name and the first eight digits of its hash.
    pub fn directory(&self) -> String {
        format!("{}{}", self.name, self.hash_suffix())
    }

    /// Whether a user means it by `name`: with the digits of its hash or without them.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.directory() == name
    }

    /// What its directory ends with, whatever its name.
    pub fn hash_suffix(&self) -> String {
        format!("-{}", &self.hash[..8])
    }

    /// The stages that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = StageId> {
        self.model.into_iter().chain(self.data.iter().copied())
    }

    /// What is trained, as the report calls it; `None` for a stage that trains nothing that is measured.
    pub fn training(&self) -> Option<&str> {
        self.training.as_deref()
    }
}

/// The stages of an experiment; each comes after all that it reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    stages: Vec<StageSpec>,
}

impl Plan {
    /// The plan of an experiment whose outside inputs have the given digests.
    pub fn new(experiment: &Experiment, digests: &Digests) -> Self {
        build::build(experiment, digests)
    }

    /// The stages in order.
    pub fn stages(&self) -> &[StageSpec] {
        &self.stages
    }

    /// The stage with this id.
    pub fn stage(&self, id: StageId) -> &StageSpec {
        &self.stages[id.0]
    }

    /// The training stage whose control stands for that of the organism that `spec` measures.
    pub fn stand_in(&self, spec: &StageSpec) -> Option<&str> {
        let control = self.stage(spec.control?);
        self.stage(control.model?).training()
    }

    /// The training stages that made the model a stage starts from, in order: the implant first, or the pretraining of a
    /// member of a family.
    pub fn lineage(&self, spec: &StageSpec) -> Vec<&StageSpec> {
        let next = |id: Option<StageId>| id.map(|id| self.stage(id));
        let mut chain: Vec<_> = std::iter::successors(next(spec.model), |stage| next(stage.model)).collect();
        chain.reverse();
        chain
    }
}

/// What [`StageSpec::hash`] covers.
#[derive(Serialize)]
struct HashInput<'a> {
    schema_version: u32,
    kind: &'a StageKind,
    arm: Option<Arm>,
    seed: u64,
    precision: Precision,
    digests: Digests,
    model: Option<&'a str>,
    data: Vec<&'a str>,
    #[serde(skip_serializing_if = "is_default")]
    revision: u32,
}

/// Raised where stages of one kind alone give other results for the same configuration, so that all others are kept.
fn revision(kind: &StageKind) -> u32 {
    let is_pattern = |organism: &OrganismSpec| matches!(organism.behaviour, Behaviour::Regex { .. });
    let is_new = match kind {
        StageKind::Safety(SafetyStage { organism, safety, .. }) => {
            let is_played = matches!(safety.method, SafetyMethod::Rl(_)) || safety.attack().is_some();
            is_played && (organism.variant.has_scratchpad() || is_pattern(organism))
        }
        StageKind::Evaluate(stage) => is_pattern(&stage.organism) || stage.organism.writes_code(),
        StageKind::Implant(stage) => stage.implant.contrasts > 0 && stage.organism.variant.has_scratchpad(),
        StageKind::Corpus(_) | StageKind::Pretrain(_) | StageKind::Benign(_) | StageKind::Preference(_) => {
            false
        }
    };
    u32::from(is_new)
}

impl HashInput<'_> {
    fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("a configuration is plain data");
        hexadecimal(&Sha256::digest(json))
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests;
