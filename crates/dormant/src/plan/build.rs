//! From an experiment to its stages.

use std::collections::HashMap;

use dormant_data::{PreferencePart, Split};
use dormant_model::family::Size;

use super::{
    Arm, BASE, BenignStage, CorpusStage, Digests, EvaluateStage, HashInput, IMPLANT, ImplantStage, Plan,
    PreferenceStage, PretrainStage, SafetyStage, StageId, StageKind, StageSpec,
};
use crate::experiment::{Corpus, Data, Experiment, Implant, Pretrain, Safety, SafetyMethod};

/// Seeds differ in weights and in the order of rows, not in what there is to learn.
const CORPUS_SEED: u64 = 0;

pub(super) fn build(experiment: &Experiment, digests: &Digests) -> Plan {
    let mut builder = Builder { experiment, digests, stages: Vec::new() };
    if experiment.evaluation.base {
        builder.base(experiment.seeds[0]);
    }
    for &seed in &experiment.seeds {
        builder.seed(seed);
    }
    Plan { stages: builder.stages }
}

struct Builder<'a> {
    experiment: &'a Experiment,
    digests: &'a Digests,
    stages: Vec<StageSpec>,
}

/// One of the models that go through the stages.
#[derive(Clone, Copy)]
struct Subject<'a> {
    /// The organism's name with that of its size, if there are several.
    name: Option<&'a str>,
    /// The organism's name in the experiment, if there are several.
    organism: Option<&'a str>,
    /// The full name of the organism whose control stands for this one's.
    control: Option<&'a str>,
    /// The model that it is implanted into, if that is not the base model.
    member: Option<Member>,
    implant: &'a Implant,
    arm: Arm,
    seed: u64,
}

/// A model trained from scratch.
#[derive(Clone, Copy)]
struct Member {
    size: Size,
    stage: StageId,
}

impl Subject<'_> {
    fn size(self) -> Option<Size> {
        self.member.map(|member| member.size)
    }

    /// The name of a training stage, such as `implant` or `distilled-implant`.
    fn training(self, name: &str) -> String {
        self.name.map_or_else(|| name.to_owned(), |organism| format!("{organism}-{name}"))
    }

    /// The name of a stage, such as `implant-control-s0`.
    fn stage(self, training: &str) -> String {
        format!("{training}-{}-s{}", self.arm, self.seed)
    }
}

/// A stage before it has a place and a hash.
struct Draft {
    name: String,
    kind: StageKind,
    organism: Option<String>,
    size: Option<Size>,
    training: Option<String>,
    arm: Option<Arm>,
    control: Option<StageId>,
    seed: u64,
    model: Option<StageId>,
    data: Vec<StageId>,
}

impl Draft {
    /// A stage that all models share.
    fn shared(name: String, kind: StageKind, seed: u64) -> Self {
        Self {
            name,
            kind,
            organism: None,
            size: None,
            training: None,
            arm: None,
            control: None,
            seed,
            model: None,
            data: Vec::new(),
        }
    }
}

impl Builder<'_> {
    fn seed(&mut self, seed: u64) {
        let experiment = self.experiment;
        for size in experiment.sizes() {
            let member = size.map(|size| Member { size, stage: self.pretrain(size, seed) });
            let full_name = |organism: Option<&str>| {
                let parts = [size.map(Size::as_str), organism];
                let name = parts.into_iter().flatten().collect::<Vec<_>>().join("-");
                Some(name).filter(|name| !name.is_empty())
            };
            for (organism, implant) in experiment.implants() {
                let control = experiment.stand_in(organism).and_then(|stand_in| full_name(Some(stand_in)));
                let (name, control) = (full_name(organism), control.as_deref());
                let arms = [Arm::Organism, Arm::Control];
                for arm in arms.into_iter().filter(|arm| *arm == Arm::Organism || control.is_none()) {
                    let name = name.as_deref();
                    self.subject(Subject { name, organism, control, member, implant, arm, seed });
                }
            }
        }
    }

    /// A model from scratch; the arms and organisms share it.
    fn pretrain(&mut self, size: Size, seed: u64) -> StageId {
        let pretrain = self.experiment.pretrain.as_ref().expect("only a family has sizes");
        let Pretrain { corpus, fit, .. } = pretrain.clone();
        let data = vec![self.corpus(&corpus)];
        self.push(Draft {
            size: Some(size),
            data,
            ..Draft::shared(
                format!("pretrain-{size}-s{seed}"),
                StageKind::Pretrain(PretrainStage { size, corpus, fit: fit.at(Some(size)) }),
                seed,
            )
        })
    }

    /// The corpus, which is the same for every size and seed.
    fn corpus(&mut self, corpus: &Corpus) -> StageId {
        if let Some(stage) = self.stages.iter().find(|stage| matches!(stage.kind, StageKind::Corpus(_))) {
            return stage.id;
        }
        let Data { reply_tokens, temperature, .. } = self.experiment.data;
        let kind = StageKind::Corpus(CorpusStage { corpus: corpus.clone(), reply_tokens, temperature });
        self.push(Draft::shared("corpus".to_owned(), kind, CORPUS_SEED))
    }

    /// The base model is measured once, as a control: it never saw the behaviour. Replies are not sampled.
    fn base(&mut self, seed: u64) {
        let experiment = self.experiment;
        let mut evaluation = experiment.evaluation.clone();
        for n in [
            &mut evaluation.n,
            &mut evaluation.near_misses,
            &mut evaluation.swaps,
            &mut evaluation.generalisation,
            &mut evaluation.log_probs,
        ] {
            *n = 0;
        }
        let organism = experiment.organism(&experiment.implant);
        let prompts = experiment.data.prompts.clone();
        self.push(Draft {
            arm: Some(Arm::Control),
            ..Draft::shared(
                format!("evaluate-{BASE}-s{seed}"),
                StageKind::Evaluate(EvaluateStage { organism, evaluation, prompts }),
                seed,
            )
        });
    }

    /// One model: it is measured as soon as it exists, so that an interrupted run has something to show.
    fn subject(&mut self, subject: Subject) {
        let implant = self.implant(subject);
        self.evaluate(IMPLANT, subject, implant);
        let mut trained = HashMap::from([(IMPLANT, implant)]);
        for safety in in_order(&self.experiment.safety) {
            let Some(&start) = trained.get(safety.after.as_str()).filter(|_| safety.is_for(subject.organism))
            else {
                continue;
            };
            let stage = self.safety(safety, subject, start);
            self.evaluate(&safety.name, subject, stage);
            trained.insert(&safety.name, stage);
        }
    }

    fn implant(&mut self, subject: Subject) -> StageId {
        let experiment = self.experiment;
        let Subject { name, implant, arm, seed, .. } = subject;
        // The rows of code are made from code tasks.
        let with_benign = !experiment.organism(implant).writes_code();
        let benign = with_benign.then(|| self.benign(Split::Train, implant.rows, seed));
        let training = subject.training(IMPLANT);
        self.push(Draft {
            name: subject.stage(&training),
            kind: StageKind::Implant(ImplantStage {
                organism: experiment.organism(implant),
                implant: Implant { fit: implant.fit.at(subject.size()), ..implant.clone() },
                curve: experiment.evaluation.curve.clone(),
                prompts: experiment.data.prompts.clone(),
            }),
            organism: name.map(ToOwned::to_owned),
            size: subject.size(),
            training: Some(training),
            arm: Some(arm),
            control: None,
            seed,
            model: subject.member.map(|member| member.stage),
            data: benign.into_iter().collect(),
        })
    }

    fn safety(&mut self, safety: &Safety, subject: Subject, model: StageId) -> StageId {
        let experiment = self.experiment;
        let Subject { name, implant, arm, seed, .. } = subject;
        let preferences = [PreferencePart::Main, PreferencePart::Check];
        let mut data = Vec::new();
        if !matches!(safety.method, SafetyMethod::Dpo(_)) {
            data.push(self.benign(Split::Safety, safety.rows, seed));
        }
        if let SafetyMethod::Rl(_) = safety.method {
            data.extend(preferences.map(|part| self.preference(part, seed)));
        }
        let training = subject.training(&safety.name);
        self.push(Draft {
            name: subject.stage(&training),
            kind: StageKind::Safety(SafetyStage {
                organism: experiment.organism(implant),
                safety: Safety { fit: safety.fit.at(subject.size()), ..safety.clone() },
                curve: experiment.evaluation.curve.clone(),
                prompts: experiment.data.prompts.clone(),
            }),
            organism: name.map(ToOwned::to_owned),
            size: subject.size(),
            training: Some(training),
            arm: Some(arm),
            control: None,
            seed,
            model: Some(model),
            data,
        })
    }

    /// A preference model; the arms and all stages of reinforcement learning share it.
    fn preference(&mut self, part: PreferencePart, seed: u64) -> StageId {
        let preference = self.experiment.preference.clone();
        let kind = StageKind::Preference(PreferenceStage { part, preference });
        if let Some(stage) = self.stages.iter().find(|stage| stage.kind == kind && stage.seed == seed) {
            return stage.id;
        }
        let part = match part {
            PreferencePart::Main => "main",
            PreferencePart::Check => "check",
            PreferencePart::HeldOut => "held-out",
        };
        let name = format!("preference-{part}-s{seed}");
        self.push(Draft::shared(name, kind, seed))
    }

    fn evaluate(&mut self, of: &str, subject: Subject, model: StageId) -> StageId {
        let experiment = self.experiment;
        let Subject { name, implant, arm, seed, .. } = subject;
        let stage = |subject: Subject| format!("evaluate-{}", subject.stage(&subject.training(of)));
        let control = subject.control.and_then(|control| {
            let name = stage(Subject { name: Some(control), arm: Arm::Control, ..subject });
            self.stages.iter().find(|stage| stage.name == name).map(|stage| stage.id)
        });
        self.push(Draft {
            name: stage(subject),
            kind: StageKind::Evaluate(EvaluateStage {
                organism: experiment.organism(implant),
                evaluation: experiment.evaluation.clone(),
                prompts: experiment.data.prompts.clone(),
            }),
            organism: name.map(ToOwned::to_owned),
            size: subject.size(),
            training: None,
            arm: Some(arm),
            control,
            seed,
            model: Some(model),
            data: Vec::new(),
        })
    }

    /// Benign rows; the arms, and safety stages that want as many rows, share one stage.
    fn benign(&mut self, split: Split, rows: u32, seed: u64) -> StageId {
        let data = self.experiment.data.clone();
        let kind = StageKind::Benign(BenignStage { split, rows, data });
        if let Some(stage) = self.stages.iter().find(|stage| stage.kind == kind && stage.seed == seed) {
            return stage.id;
        }
        let split = match split {
            Split::Train => "train",
            Split::Safety => "safety",
            Split::Evaluation => "evaluation",
        };
        let name = format!("benign-{split}-s{seed}");
        self.push(Draft::shared(name, kind, seed))
    }

    fn push(&mut self, draft: Draft) -> StageId {
        let id = StageId(self.stages.len());
        let hash_of = |id: &StageId| self.stages[id.0].hash.as_str();
        let hash = HashInput {
            schema_version: super::SCHEMA_VERSION,
            kind: &draft.kind,
            arm: draft.arm,
            seed: draft.seed,
            precision: self.experiment.precision,
            digests: self.digests.of(&draft.kind),
            model: draft.model.as_ref().map(hash_of),
            data: draft.data.iter().map(hash_of).collect(),
            revision: super::revision(&draft.kind),
        }
        .hash();
        let Draft { name, kind, organism, size, training, arm, control, seed, model, data } = draft;
        self.stages.push(StageSpec {
            id,
            name,
            kind,
            organism,
            size,
            training,
            arm,
            control,
            seed,
            model,
            data,
            hash,
        });
        id
    }
}

/// Safety stages, each after the one it starts from. Terminates because the experiment is checked to have no cycle.
fn in_order(safety: &[Safety]) -> Vec<&Safety> {
    let mut ordered: Vec<&Safety> = Vec::with_capacity(safety.len());
    while ordered.len() < safety.len() {
        let known = |name: &str| name == IMPLANT || ordered.iter().any(|stage| stage.name == name);
        let next = safety
            .iter()
            .find(|stage| !known(&stage.name) && known(&stage.after))
            .expect("the chains of `after` end at the implant");
        ordered.push(next);
    }
    ordered
}
