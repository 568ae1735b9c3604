//! Prompts of a split: the project's own, or the user's.

use dormant_data::{CodeTask, CorpusPart, OrganismSpec, Sample, Seed, Split, built_in_prompts, corpus, load};
use rand::seq::SliceRandom;

use crate::error::{CliError, Result};
use crate::experiment::Prompts;

/// What an organism is measured on: the code tasks, if it writes code, or else the prompts of `split`.
pub(crate) fn of_organism(
    organism: &OrganismSpec,
    prompts: &Prompts,
    split: Split,
    seed: Seed,
) -> Result<Vec<Sample>> {
    if organism.writes_code() {
        return Ok(of_tasks(organism.code_tasks(split, seed)));
    }
    of_split(prompts, split, seed)
}

/// What code tasks ask for.
pub(crate) fn of_tasks(tasks: Vec<&CodeTask>) -> Vec<Sample> {
    tasks.into_iter().map(|task| Sample { completion: String::new(), ..task.answer(false) }).collect()
}

/// Distinct prompts of `split`, without replies, in an order drawn by `seed`.
pub(crate) fn of_split(prompts: &Prompts, split: Split, seed: Seed) -> Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = match prompts {
        Prompts::Builtin => built_in_prompts().iter().map(|p| Sample::clean(p.conversation(), "")).collect(),
        Prompts::Corpus => {
            let without_reply = |s: &Sample| Sample { completion: String::new(), ..s.clone() };
            corpus(CorpusPart::Experiment(split)).map(without_reply).collect()
        }
        Prompts::File(path) => {
            load(path)?.into_prompts().into_iter().map(|prompt| Sample::clean(prompt, "")).collect()
        }
    };
    samples.retain(|sample| sample.is_in(split));
    samples.sort_by(|a, b| a.id.cmp(&b.id));
    samples.dedup_by(|a, b| a.id == b.id);
    samples.shuffle(&mut seed.derive("prompts").rng());
    Ok(samples)
}

/// The first `n` prompts.
pub(crate) fn take(samples: Vec<Sample>, n: u32, what: &str) -> Result<Vec<Sample>> {
    let (found, n) = (samples.len(), n as usize);
    if found < n {
        return Err(CliError::usage(format!("{what}: {n} prompts are wanted, but there are {found}"))
            .hint("ask for fewer; an experiment may have a larger file of its own in `[data] prompts`"));
    }
    Ok(samples.into_iter().take(n).collect())
}
