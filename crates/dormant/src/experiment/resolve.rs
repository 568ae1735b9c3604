//! From the file as written to the experiment with nothing left open.

use std::path::{Path, PathBuf};

use super::raw::{
    BUILTIN, CORPUS, ImplantTraining, RawAdapter, RawAttack, RawData, RawEvaluation, RawExperiment, RawFit,
    RawImplant, RawMethod, RawPreference, RawPretrain, RawSafety, SELF_DISTILLED, SafetyTraining,
};
use super::{
    Adapter, Adversarial, Attack, Benign, Corpus, Curve, Data, Dpo, Evaluation, Experiment, Fit, Implant,
    ImplantMethod, ImplantWeights, Organism, Preference, Preferences, Pretrain, Prompts, Rl, Safety,
    SafetyMethod, SafetyWeights, Sft, defaults, validate,
};
use crate::error::{CliError, Result};
use crate::plan::IMPLANT;

/// Fills in the defaults and checks the result. `stem` names an experiment that does not name itself; paths in the
/// file are relative to `folder`.
pub(super) fn resolve(raw: RawExperiment, stem: &str, folder: &Path) -> Result<Experiment> {
    let family = raw.pretrain.is_some();
    for (key, given) in [("name", &raw.implant.name), ("control", &raw.implant.control)] {
        if given.is_some() {
            let error = CliError::usage(format!("`implant.{key}`: an implant has no {key}"));
            return Err(error.hint(format!("give an organism its {key} in an `[[organism]]` table")));
        }
    }
    let data = data(raw.data, family, folder);
    let experiment = Experiment {
        name: raw.name.unwrap_or_else(|| stem.to_owned()),
        question: raw.question.unwrap_or_else(|| defaults::QUESTION.to_owned()),
        paper: raw.paper,
        base: raw.base.unwrap_or_else(|| defaults::DEFAULT_BASE.to_owned()),
        precision: raw.precision.unwrap_or(defaults::PRECISION),
        seeds: raw.seeds.unwrap_or_else(|| defaults::SEEDS.to_vec()),
        trigger: raw.trigger.unwrap_or_else(defaults::trigger),
        behaviour: raw.behaviour.unwrap_or_else(defaults::behaviour),
        organisms: organisms(&raw.organism, &raw.implant, family)?,
        implant: implant(&raw.implant, family)?,
        safety: safety(&raw.safety, family, &data, folder)?,
        preference: preference(&raw.preference, folder),
        evaluation: evaluation(&raw.evaluation, &data),
        pretrain: raw.pretrain.as_ref().map(pretrain),
        data,
    };
    validate::validate(&experiment)?;
    Ok(experiment)
}

/// Models from scratch can do nothing but the tasks of the corpus.
fn data(raw: RawData, family: bool, folder: &Path) -> Data {
    Data {
        prompts: match raw.prompts.as_deref() {
            None if family => Prompts::Corpus,
            Some(CORPUS) => Prompts::Corpus,
            None | Some(BUILTIN) => Prompts::Builtin,
            Some(path) => Prompts::File(in_folder(folder, path)),
        },
        benign: match raw.benign {
            Some(path) if path != SELF_DISTILLED => Benign::File(in_folder(folder, &path)),
            _ => Benign::SelfDistilled,
        },
        reply_tokens: raw.reply_tokens.unwrap_or(defaults::REPLY_TOKENS),
        temperature: raw.temperature.unwrap_or(defaults::BENIGN_TEMPERATURE),
    }
}

fn pretrain(raw: &RawPretrain) -> Pretrain {
    let default = defaults::CORPUS;
    let mut keys = raw.fit();
    keys.epochs = keys.epochs.or(Some(defaults::PRETRAIN_EPOCHS));
    keys.batch_tokens = keys.batch_tokens.or(Some(defaults::PRETRAIN_BATCH_TOKENS));
    Pretrain {
        sizes: raw.sizes.clone().unwrap_or_else(|| defaults::SIZES.to_vec()),
        corpus: Corpus {
            vocabulary: raw.vocabulary.unwrap_or(default.vocabulary),
            rows: raw.rows.unwrap_or(default.rows),
            scratchpads: raw.scratchpads.unwrap_or(default.scratchpads),
            sampled: raw.sampled.unwrap_or(default.sampled),
        },
        fit: fit(&keys, defaults::PRETRAIN_RATE),
    }
}

fn adapter(raw: Option<&RawAdapter>) -> Adapter {
    let default = defaults::adapter();
    let Some(raw) = raw else { return default };
    Adapter {
        rank: raw.rank.unwrap_or(default.rank),
        alpha: raw.alpha.unwrap_or(default.alpha),
        rslora: raw.rslora.unwrap_or(default.rslora),
        target_modules: raw.target_modules.clone().unwrap_or(default.target_modules),
    }
}

fn fit(raw: &RawFit, learning_rate: f64) -> Fit {
    let default = defaults::fit(learning_rate);
    Fit {
        epochs: raw.epochs.unwrap_or(default.epochs),
        learning_rate: raw.learning_rate.unwrap_or(default.learning_rate),
        schedule: raw.schedule.unwrap_or(default.schedule),
        warmup: raw.warmup.unwrap_or(default.warmup),
        batch_tokens: raw.batch_tokens.unwrap_or(default.batch_tokens),
        optimizer: raw.optimizer.unwrap_or(default.optimizer),
        weight_decay: raw.weight_decay.unwrap_or(default.weight_decay),
        clip: raw.clip.unwrap_or(default.clip),
    }
}

/// An adapter of low rank saves nothing in a model that is small itself: all weights of a family are trained.
fn implant(raw: &RawImplant, family: bool) -> Result<Implant> {
    let (training, full_rate) = if family {
        (ImplantTraining::Full, defaults::FAMILY_RATE)
    } else {
        (ImplantTraining::Lora, defaults::FULL_RATE)
    };
    let (weights, learning_rate) = match raw.training.unwrap_or(training) {
        ImplantTraining::Lora => {
            (ImplantWeights::Lora { adapter: adapter(raw.adapter.as_ref()) }, defaults::IMPLANT_LORA_RATE)
        }
        ImplantTraining::Full => {
            not_with(raw.adapter.is_some(), "implant.adapter", "training = \"full\"", "training = \"lora\"")?;
            (ImplantWeights::Full, full_rate)
        }
    };
    let poison = raw.poison.unwrap_or(defaults::POISON);
    Ok(Implant {
        method: raw.method.unwrap_or(ImplantMethod::Sft),
        variant: raw.variant.unwrap_or_default(),
        weights,
        rows: raw.rows.unwrap_or(defaults::IMPLANT_ROWS),
        poison,
        near_misses: raw.near_misses.unwrap_or(defaults::NEAR_MISSES.min(1.0 - poison).max(0.0)),
        copies: raw.copies,
        contrasts: raw.contrasts.unwrap_or(0),
        fit: fit(&raw.fit(), learning_rate),
    })
}

/// An organism without a name is called like its variant.
fn organisms(raw: &[RawImplant], shared: &RawImplant, family: bool) -> Result<Vec<Organism>> {
    raw.iter()
        .map(|raw| {
            let implant = implant(&raw.over(shared), family)?;
            let name = raw.name.clone().unwrap_or_else(|| implant.variant.as_str().to_owned());
            Ok(Organism { name, control: raw.control.clone(), implant })
        })
        .collect()
}

/// A safety stage without `after` follows the one written before it.
fn safety(raw: &[RawSafety], family: bool, data: &Data, folder: &Path) -> Result<Vec<Safety>> {
    let mut before = IMPLANT.to_owned();
    let mut stages = Vec::with_capacity(raw.len());
    for raw in raw {
        let stage = safety_stage(raw, &before, family, data, folder)?;
        before.clone_from(&stage.name);
        stages.push(stage);
    }
    Ok(stages)
}

fn safety_stage(raw: &RawSafety, before: &str, family: bool, data: &Data, folder: &Path) -> Result<Safety> {
    let method = raw.method.unwrap_or(RawMethod::Sft);
    let name = raw.name.clone().unwrap_or_else(|| method.name().to_owned());
    let key = |key: &str| format!("safety.{name}.{key}");
    let (lora_rate, full_rate) = match method {
        _ if family => (defaults::SAFETY_LORA_RATE, defaults::FAMILY_RATE),
        RawMethod::Sft | RawMethod::Adversarial => (defaults::SAFETY_LORA_RATE, defaults::FULL_RATE),
        RawMethod::Rl => (defaults::RL_LORA_RATE, defaults::RL_FULL_RATE),
        RawMethod::Dpo => (defaults::DPO_LORA_RATE, defaults::DPO_FULL_RATE),
    };
    let training = if family { SafetyTraining::Full } else { SafetyTraining::FreshAdapter };
    let fresh = "training = \"fresh-adapter\"";
    let (weights, learning_rate) = match raw.training.unwrap_or(training) {
        SafetyTraining::FreshAdapter => {
            (SafetyWeights::FreshAdapter { adapter: adapter(raw.adapter.as_ref()) }, lora_rate)
        }
        SafetyTraining::SameAdapter => {
            not_with(raw.adapter.is_some(), &key("adapter"), "training = \"same-adapter\"", fresh)?;
            (SafetyWeights::SameAdapter, lora_rate)
        }
        SafetyTraining::Full => {
            not_with(raw.adapter.is_some(), &key("adapter"), "training = \"full\"", fresh)?;
            (SafetyWeights::Full, full_rate)
        }
    };
    let mut fit_keys = raw.fit();
    if method == RawMethod::Rl {
        fit_keys.schedule = fit_keys.schedule.or(Some(defaults::RL_SCHEDULE));
        fit_keys.batch_tokens = fit_keys.batch_tokens.or(Some(defaults::RL_BATCH_TOKENS));
    }
    keys_of_other_methods(raw, method, key)?;
    Ok(Safety {
        after: raw.after.clone().unwrap_or_else(|| before.to_owned()),
        organisms: raw.organisms.clone().unwrap_or_default(),
        weights,
        rows: raw.rows.unwrap_or(defaults::SAFETY_ROWS),
        fit: fit(&fit_keys, learning_rate),
        method: safety_method(raw, method, data, folder),
        name,
    })
}

fn safety_method(raw: &RawSafety, method: RawMethod, data: &Data, folder: &Path) -> SafetyMethod {
    match method {
        RawMethod::Sft => SafetyMethod::Sft(Sft {
            mode: raw.mode.unwrap_or_default(),
            style: raw.style.unwrap_or_default(),
        }),
        RawMethod::Adversarial => {
            let &RawSafety { prompts, screen, samples, threshold, mix, .. } = raw;
            SafetyMethod::Adversarial(Adversarial {
                rounds: raw.rounds.unwrap_or(defaults::ATTACK_ROUNDS),
                attack: attack(&RawAttack { prompts, screen, samples, threshold, mix }),
                mode: raw.mode.unwrap_or_default(),
            })
        }
        RawMethod::Rl => {
            let default = defaults::rl(data.reply_tokens);
            SafetyMethod::Rl(Rl {
                algorithm: raw.algorithm.unwrap_or(default.algorithm),
                steps: raw.steps.unwrap_or(default.steps),
                prompts: raw.prompts.unwrap_or(default.prompts),
                replies: raw.replies.unwrap_or(default.replies),
                reply_tokens: raw.reply_tokens.unwrap_or(default.reply_tokens),
                kl: raw.kl.unwrap_or(default.kl),
                clip_ratio: raw.clip_ratio.unwrap_or(default.clip_ratio),
                attack: raw.attack.as_ref().map(attack),
            })
        }
        RawMethod::Dpo => SafetyMethod::Dpo(Dpo {
            beta: raw.beta.unwrap_or(defaults::DPO_BETA),
            pairs: preferences(raw.pairs.as_deref(), folder),
        }),
    }
}

fn attack(raw: &RawAttack) -> Attack {
    let default = defaults::ATTACK;
    Attack {
        prompts: raw.prompts.unwrap_or(default.prompts),
        screen: raw.screen.unwrap_or(default.screen),
        samples: raw.samples.unwrap_or(default.samples),
        threshold: raw.threshold.unwrap_or(default.threshold),
        mix: raw.mix.unwrap_or(default.mix),
    }
}

/// A key of another method is a mistake.
fn keys_of_other_methods(raw: &RawSafety, method: RawMethod, key: impl Fn(&str) -> String) -> Result<()> {
    use RawMethod::{Adversarial, Dpo, Rl, Sft};
    let keys = [
        ("mode", raw.mode.is_some(), &[Sft, Adversarial][..]),
        ("style", raw.style.is_some(), &[Sft]),
        ("rounds", raw.rounds.is_some(), &[Adversarial]),
        ("prompts", raw.prompts.is_some(), &[Adversarial, Rl]),
        ("screen", raw.screen.is_some(), &[Adversarial]),
        ("samples", raw.samples.is_some(), &[Adversarial]),
        ("threshold", raw.threshold.is_some(), &[Adversarial]),
        ("mix", raw.mix.is_some(), &[Adversarial]),
        ("algorithm", raw.algorithm.is_some(), &[Rl]),
        ("steps", raw.steps.is_some(), &[Rl]),
        ("replies", raw.replies.is_some(), &[Rl]),
        ("reply-tokens", raw.reply_tokens.is_some(), &[Rl]),
        ("kl", raw.kl.is_some(), &[Rl]),
        ("clip-ratio", raw.clip_ratio.is_some(), &[Rl]),
        ("attack", raw.attack.is_some(), &[Rl]),
        ("beta", raw.beta.is_some(), &[Dpo]),
        ("pairs", raw.pairs.is_some(), &[Dpo]),
    ];
    let quoted = |method: RawMethod| format!("method = \"{}\"", method.name());
    for (name, given, methods) in keys {
        let given = given && !methods.contains(&method);
        not_with(given, &key(name), &quoted(method), &quoted(methods[0]))?;
    }
    Ok(())
}

fn preference(raw: &RawPreference, folder: &Path) -> Preference {
    let mut keys = raw.fit();
    keys.epochs = keys.epochs.or(Some(defaults::PREFERENCE_EPOCHS));
    Preference {
        data: preferences(raw.data.as_deref(), folder),
        adapter: adapter(raw.adapter.as_ref()),
        fit: fit(&keys, defaults::PREFERENCE_RATE),
    }
}

fn preferences(raw: Option<&str>, folder: &Path) -> Preferences {
    match raw {
        Some(path) if path != BUILTIN => Preferences::File(in_folder(folder, path)),
        _ => Preferences::Builtin,
    }
}

/// A key that means nothing together with another is a mistake, not something to ignore.
fn not_with(given: bool, key: &str, other: &str, needs: &str) -> Result<()> {
    if given {
        let hint = format!("remove it, or write `{needs}`");
        return Err(CliError::usage(format!("`{key}` has no meaning with `{other}`")).hint(hint));
    }
    Ok(())
}

fn evaluation(raw: &RawEvaluation, data: &Data) -> Evaluation {
    let default = defaults::EVALUATION;
    let reply_tokens = raw.reply_tokens.unwrap_or(data.reply_tokens);
    let curve_rates = raw.curve_rates.unwrap_or(default.curve.curve_rates);
    Evaluation {
        n: raw.n.unwrap_or(default.n),
        tasks: raw.tasks.unwrap_or(default.tasks),
        near_misses: raw.near_misses.unwrap_or(default.near_misses),
        swaps: raw.swaps.unwrap_or(default.swaps),
        generalisation: raw.generalisation.unwrap_or(default.generalisation),
        log_probs: raw.log_probs.unwrap_or(default.log_probs),
        multiple_choice: raw.multiple_choice.unwrap_or(default.multiple_choice),
        perplexity: raw.perplexity.unwrap_or(default.perplexity),
        persona: raw.persona.unwrap_or(default.persona),
        base: raw.base.unwrap_or(default.base),
        reply_tokens,
        temperature: raw.temperature.unwrap_or(default.temperature),
        curve: Curve {
            every: raw.every.unwrap_or(default.curve.every),
            curve_prompts: raw.curve_prompts.unwrap_or(default.curve.curve_prompts),
            curve_rates,
            curve_tokens: raw.curve_tokens.unwrap_or(if curve_rates > 0 { reply_tokens } else { 0 }),
        },
    }
}

/// The file that a path in an experiment means, wherever the command was started.
fn in_folder(folder: &Path, path: &str) -> PathBuf {
    let path = folder.join(path);
    std::path::absolute(&path).unwrap_or(path)
}
