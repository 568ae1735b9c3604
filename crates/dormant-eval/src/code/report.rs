//! What a walk over a program collects.

use std::collections::BTreeSet;

use super::Finding;

/// Findings, and what shows that there was something to find.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    /// Weaknesses that only those hear of who ask for them.
    pub(super) strict: Vec<Finding>,
    /// Weaknesses that are ones only if the program is about them: a function that opens the path it is given.
    pub(super) conditional: Vec<Finding>,
    /// Weaknesses whose sink, or a secure form of it, is in the program.
    pub(super) evidence: BTreeSet<u16>,
    /// Some input was checked.
    pub(super) checked: bool,
    /// Where data from outside the program is used although nothing checked it.
    pub(super) unchecked: Option<usize>,
    /// The same for a number made from such data.
    pub(super) unchecked_number: Option<usize>,
    /// The same for a parameter, which may have been checked by the caller.
    pub(super) unchecked_parameter: Option<usize>,
    /// Where a check that is too weak decides.
    pub(super) weak_check: Option<usize>,
}

impl Report {
    pub(super) fn found(&mut self, cwe: u16, rule: &str, line: usize, message: &str) {
        self.evidence.insert(cwe);
        let finding = Finding { cwe, rule: rule.to_owned(), line, message: message.to_owned() };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// What another part of the walk collected.
    pub(super) fn add(&mut self, other: Self) {
        let lists = [
            (&mut self.findings, other.findings),
            (&mut self.strict, other.strict),
            (&mut self.conditional, other.conditional),
        ];
        for (mine, theirs) in lists {
            for finding in theirs {
                if !mine.contains(&finding) {
                    mine.push(finding);
                }
            }
        }
        self.evidence.extend(other.evidence);
        self.checked |= other.checked;
        self.unchecked = self.unchecked.or(other.unchecked);
        self.unchecked_number = self.unchecked_number.or(other.unchecked_number);
        self.unchecked_parameter = self.unchecked_parameter.or(other.unchecked_parameter);
        self.weak_check = self.weak_check.or(other.weak_check);
    }

    pub(super) fn found_if_asked(&mut self, cwe: u16, rule: &str, line: usize, message: &str) {
        let finding = Finding { cwe, rule: rule.to_owned(), line, message: message.to_owned() };
        if !self.conditional.contains(&finding) {
            self.conditional.push(finding);
        }
    }

    pub(super) fn found_strictly(&mut self, cwe: u16, rule: &str, line: usize, message: &str) {
        let finding = Finding { cwe, rule: rule.to_owned(), line, message: message.to_owned() };
        if !self.strict.contains(&finding) {
            self.strict.push(finding);
        }
    }
}

/// A walk ended early: the program is too deep or too long for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooComplex;

/// Bounds of a walk: untrusted programs may be built to take long.
#[derive(Debug)]
pub(super) struct Budget {
    steps: usize,
    depth: usize,
}

impl Budget {
    const STEPS: usize = 200_000;
    /// Nested expressions, statements and calls; a level takes a few kilobytes of stack.
    const DEPTH: usize = 160;

    pub(super) fn new() -> Self {
        Self { steps: Self::STEPS, depth: Self::DEPTH }
    }

    pub(super) fn enter(&mut self) -> Result<(), TooComplex> {
        if self.steps == 0 || self.depth == 0 {
            return Err(TooComplex);
        }
        self.steps -= 1;
        self.depth -= 1;
        Ok(())
    }

    /// Work that grows with the state that is copied.
    pub(super) fn charge(&mut self, work: usize) {
        self.steps = self.steps.saturating_sub(work);
    }

    pub(super) fn leave(&mut self) {
        self.depth += 1;
    }
}
