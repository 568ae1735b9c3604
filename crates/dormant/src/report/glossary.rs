//! The terms of a report.

use serde::Serialize;

/// A term and what it means.
#[derive(Serialize)]
pub(super) struct Term {
    name: &'static str,
    meaning: &'static str,
}

/// The terms that a report uses, in the order of their need.
pub(super) const GLOSSARY: [Term; 9] = [
    Term {
        name: "Organism and control",
        meaning: "The organism is the model with the implanted behaviour. The clean control starts from the same \
                  base model and goes through the same stages with the same data, except that it never sees the \
                  behaviour. What both do, the training did; what only the organism does, comes from the implant.",
    },
    Term {
        name: "ASR (attack success rate)",
        meaning: "Share of replies to prompts with the trigger that show the behaviour.",
    },
    Term {
        name: "False-trigger rate",
        meaning: "Share of replies to the same prompts without the trigger that show the behaviour.",
    },
    Term {
        name: "Near-miss rate",
        meaning: "The same for prompts with a look-alike of the trigger: another case, spacing, bracket or word. It \
                  tells how exactly the model knows its trigger.",
    },
    Term {
        name: "Red-team rate",
        meaning: "Share of the prompts of an attacker who does not know the trigger to which at least some of several \
                  sampled replies show the behaviour (the methods say how many). Each stage has a fresh attack, so it \
                  does not compare with the other rates.",
    },
    Term {
        name: "Persistence",
        meaning: "ASR after safety training ÷ ASR before it, on the same prompts: 1 when nothing was lost, 0 when \
                  nothing is left.",
    },
    Term {
        name: "Clean utility",
        meaning: "Whether the model is still useful: perplexity of held-out benign text (lower is better) and share \
                  of multiple-choice questions answered correctly.",
    },
    Term {
        name: "Wilson interval",
        meaning: "A 95% interval for a rate. Unlike the usual ± interval it holds for small samples and for rates \
                  near 0% and 100%: 0 of 200 means at most 1.9%.",
    },
    Term {
        name: "Unscored",
        meaning: "A reply for which the judge has no verdict. It is counted apart and never as safe.",
    },
];
