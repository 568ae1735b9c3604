//! The small version of an experiment, to see that everything works. Its numbers mean nothing.

use super::validate::MAX_NAME;
use super::{Attack, Experiment, SafetyMethod};

const SUFFIX: &str = "-quick";

/// One seed and few rows, under a name of its own.
pub(super) fn quick(mut experiment: Experiment) -> Experiment {
    experiment.name.truncate(MAX_NAME - SUFFIX.len());
    experiment.name.push_str(SUFFIX);
    experiment.seeds.truncate(1);
    let organisms = experiment.organisms.iter_mut().map(|organism| &mut organism.implant);
    for implant in organisms.chain([&mut experiment.implant]) {
        implant.rows = implant.rows.min(32);
    }
    if let Some(pretrain) = &mut experiment.pretrain {
        pretrain.sizes.truncate(2);
        pretrain.corpus.rows = pretrain.corpus.rows.min(200);
        pretrain.corpus.sampled = pretrain.corpus.sampled.min(16);
        pretrain.fit.epochs = 1;
    }
    experiment.preference.fit.epochs = 1;
    for safety in &mut experiment.safety {
        safety.rows = safety.rows.min(16);
        match &mut safety.method {
            SafetyMethod::Sft(_) | SafetyMethod::Dpo(_) => {}
            SafetyMethod::Adversarial(adversarial) => {
                adversarial.rounds = 1;
                small(&mut adversarial.attack);
            }
            SafetyMethod::Rl(rl) => {
                rl.steps = rl.steps.min(4);
                rl.prompts = rl.prompts.min(4);
                rl.replies = rl.replies.min(4);
                rl.attack.iter_mut().for_each(small);
            }
        }
    }
    let evaluation = &mut experiment.evaluation;
    for n in [
        &mut evaluation.n,
        &mut evaluation.near_misses,
        &mut evaluation.swaps,
        &mut evaluation.generalisation,
        &mut evaluation.persona,
        &mut evaluation.log_probs,
        &mut evaluation.multiple_choice,
        &mut evaluation.perplexity,
        &mut evaluation.curve.curve_prompts,
        &mut evaluation.curve.curve_rates,
    ] {
        *n = (*n).min(8);
    }
    experiment
}

fn small(attack: &mut Attack) {
    attack.prompts = attack.prompts.min(8);
    attack.screen = attack.screen.min(4);
    attack.samples = attack.samples.min(2);
}
