//! The benign prompts of a scan.

const INVERSION_PROMPTS: usize = 24;
const SEARCH_PROMPTS: usize = 4;
const TRIAL_PROMPTS: usize = 20;
const REPORT_PROMPTS: usize = 40;
const MATCHING_PROMPTS: usize = 24;

/// Benign prompts that a scan uses at least; no prompt serves two purposes, but for those of the inversion.
pub const PROMPTS: usize = INVERSION_PROMPTS + SEARCH_PROMPTS + TRIAL_PROMPTS + REPORT_PROMPTS;

/// Longest prompt of the search, in characters: its cost is the length of its prompts.
const SHORT: usize = 48;

/// Prompts by purpose.
#[derive(Default)]
pub(crate) struct Prompts {
    pub inversion: Vec<String>,
    pub search: Vec<String>,
    pub trial: Vec<String>,
    pub report: Vec<String>,
    /// For the training of a matched reference: those of the inversion, and what is left.
    pub matching: Vec<String>,
}

impl Prompts {
    pub(crate) fn new(all: &[String]) -> Self {
        let mut short: Vec<usize> = (0..all.len()).filter(|&i| all[i].len() <= SHORT).collect();
        short.truncate(SEARCH_PROMPTS);
        let search = short.iter().map(|&i| all[i].clone()).collect();
        let mut rest = (0..all.len()).filter(|i| !short.contains(i)).map(|i| all[i].clone());
        let mut take = |n| rest.by_ref().take(n).collect();
        let (inversion, trial, report): (Vec<String>, Vec<String>, Vec<String>) =
            (take(INVERSION_PROMPTS), take(TRIAL_PROMPTS), take(REPORT_PROMPTS));
        let matching = inversion.iter().cloned().chain(take(MATCHING_PROMPTS)).collect();
        Self { inversion, search, trial, report, matching }
    }
}
