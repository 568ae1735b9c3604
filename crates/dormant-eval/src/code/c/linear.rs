//! Linear forms over symbols, and facts about them: enough arithmetic to tell whether a write fits.

use std::collections::BTreeMap;

/// Facts are combined at most this often in one proof.
const DEPTH: usize = 6;
/// Facts kept; older ones go.
const FACTS: usize = 40;
/// Combinations tried in one proof.
const TRIES: usize = 500;

/// `k + Σ coefficient · symbol`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Linear {
    terms: BTreeMap<String, i64>,
    k: i64,
}

impl Linear {
    pub(super) fn constant(k: i64) -> Self {
        Self { terms: BTreeMap::new(), k }
    }

    pub(super) fn symbol(name: impl Into<String>) -> Self {
        Self { terms: BTreeMap::from([(name.into(), 1)]), k: 0 }
    }

    pub(super) fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.k)
    }

    pub(super) fn mentions(&self, symbol: &str) -> bool {
        self.terms.contains_key(symbol)
    }

    pub(super) fn symbols(&self) -> impl Iterator<Item = &str> {
        self.terms.keys().map(String::as_str)
    }

    #[must_use]
    pub(super) fn plus(&self, other: &Self) -> Self {
        self.combine(other, 1)
    }

    #[must_use]
    pub(super) fn minus(&self, other: &Self) -> Self {
        self.combine(other, -1)
    }

    #[must_use]
    pub(super) fn add(&self, k: i64) -> Self {
        Self { terms: self.terms.clone(), k: self.k.saturating_add(k) }
    }

    #[must_use]
    pub(super) fn times(&self, factor: i64) -> Self {
        Self::default().combine(self, factor)
    }

    /// The form in units of `size`; a remainder of a constant is cut off.
    pub(super) fn divided(&self, size: i64) -> Option<Self> {
        if size <= 1 {
            return Some(self.clone());
        }
        let exact = self.terms.values().all(|coefficient| coefficient % size == 0);
        let terms =
            self.terms.iter().map(|(symbol, coefficient)| (symbol.clone(), coefficient / size)).collect();
        exact.then(|| Self { terms, k: self.k.div_euclid(size) })
    }

    fn combine(&self, other: &Self, factor: i64) -> Self {
        let mut sum = self.clone();
        sum.k = sum.k.saturating_add(other.k.saturating_mul(factor));
        for (symbol, coefficient) in &other.terms {
            let mine = sum.terms.entry(symbol.clone()).or_default();
            *mine = mine.saturating_add(coefficient.saturating_mul(factor));
        }
        sum.terms.retain(|_, coefficient| *coefficient != 0);
        sum
    }

    /// The form with a symbol replaced.
    fn substitute(&self, symbol: &str, by: &Self) -> Self {
        let Some(&coefficient) = self.terms.get(symbol) else { return self.clone() };
        let mut rest = self.clone();
        rest.terms.remove(symbol);
        rest.combine(by, coefficient)
    }
}

/// What is known to be at least zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    forms: Vec<Linear>,
    natural: Vec<String>,
}

impl Facts {
    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.forms.len()
    }

    /// `form ≥ 0` from here on.
    pub(super) fn learn(&mut self, form: Linear) {
        if form.as_constant().is_none() && !self.forms.contains(&form) {
            if self.forms.len() == FACTS {
                self.forms.remove(0);
            }
            self.forms.push(form);
        }
    }

    pub(super) fn learn_equal(&mut self, left: &Linear, right: &Linear) {
        self.learn(left.minus(right));
        self.learn(right.minus(left));
    }

    /// The symbol is never negative.
    pub(super) fn learn_natural(&mut self, symbol: &str) {
        if self.natural.len() < FACTS && !self.natural.iter().any(|known| known == symbol) {
            self.natural.push(symbol.to_owned());
        }
    }

    /// The symbol has a new, unknown value.
    pub(super) fn forget(&mut self, symbol: &str) {
        self.forms.retain(|form| !form.mentions(symbol));
    }

    /// `symbol := symbol + change`.
    pub(super) fn shift(&mut self, symbol: &str, change: &Linear) {
        let old = Linear::symbol(symbol).minus(change);
        for form in &mut self.forms {
            *form = form.substitute(symbol, &old);
        }
        if self.natural.iter().any(|known| known == symbol) {
            self.learn(old);
        }
    }

    /// What holds on either of two ways.
    pub(super) fn meet(&self, other: &Self) -> Self {
        let mut both = Self { forms: Vec::new(), natural: self.natural.clone() };
        both.natural.extend(other.natural.iter().filter(|symbol| !self.natural.contains(symbol)).cloned());
        for form in self.forms.iter().filter(|form| other.holds(form)) {
            both.learn(form.clone());
        }
        for form in other.forms.iter().filter(|form| self.holds(form)) {
            both.learn(form.clone());
        }
        both
    }

    /// The facts that hold there too.
    pub(super) fn kept_by(&self, other: &Self) -> Self {
        let forms = self.forms.iter().filter(|form| other.holds(form)).cloned().collect();
        Self { forms, natural: self.natural.clone() }
    }

    /// Whether all facts of the other follow.
    pub(super) fn imply(&self, other: &Self) -> bool {
        other.forms.iter().all(|form| self.holds(form))
    }

    /// Whether the least that is known of a form is below zero.
    pub(super) fn allow_negative(&self, form: &Linear) -> bool {
        let above = |fact: &Linear| fact.minus(form).as_constant().is_some_and(|more| more > 0);
        self.forms.iter().any(above) && !self.proves(form)
    }

    /// Whether some form about this symbol is known that bounds it from above. The length of a text is no bound of
    /// what is written elsewhere.
    pub(super) fn bounds(&self, symbol: &str) -> bool {
        let is_bound = |form: &Linear| {
            form.terms.get(symbol).is_some_and(|coefficient| *coefficient < 0)
                && !form
                    .terms
                    .iter()
                    .any(|(other, coefficient)| *coefficient > 0 && other.starts_with("strlen("))
        };
        self.forms.iter().any(is_bound)
    }

    /// Whether `form ≥ 0` is known or follows; most of what meets is the same.
    fn holds(&self, form: &Linear) -> bool {
        self.forms.contains(form) || self.proves(form)
    }

    /// Whether `form ≥ 0` follows.
    pub(super) fn proves(&self, form: &Linear) -> bool {
        let mut tries = TRIES;
        self.search(form, DEPTH, &mut tries)
    }

    fn search(&self, form: &Linear, depth: usize, tries: &mut usize) -> bool {
        let natural = |symbol: &String| self.natural.contains(symbol);
        let positive = form.terms.iter().all(|(symbol, coefficient)| *coefficient > 0 && natural(symbol));
        if positive && form.k >= 0 {
            return true;
        }
        if depth == 0 || *tries == 0 {
            return false;
        }
        *tries -= 1;
        let open = form.terms.iter().find(|(_, coefficient)| **coefficient < 0);
        let open = open.or_else(|| form.terms.iter().find(|(symbol, _)| !natural(symbol)));
        let Some((symbol, &coefficient)) = open.or_else(|| form.terms.iter().next()) else { return false };
        self.forms.iter().any(|fact| {
            let Some(&theirs) = fact.terms.get(symbol) else { return false };
            let fits = theirs.signum() == coefficient.signum() && coefficient.checked_rem(theirs) == Some(0);
            fits && self.search(&form.combine(fact, -(coefficient / theirs)), depth - 1, tries)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str) -> Linear {
        Linear::symbol(name)
    }

    #[test]
    fn bounds_chain() {
        let mut facts = Facts::default();
        facts.learn_equal(&symbol("n"), &symbol("strlen(s)"));
        facts.learn(Linear::constant(63).minus(&symbol("strlen(s)")));
        assert!(facts.proves(&Linear::constant(64).minus(&symbol("n")).add(-1)));
        assert!(!facts.proves(&Linear::constant(63).minus(&symbol("n")).add(-1)));
    }

    #[test]
    fn a_counter_moves_its_bounds() {
        let mut facts = Facts::default();
        facts.learn(Linear::constant(62).minus(&symbol("i")));
        facts.shift("i", &Linear::constant(1));
        assert!(facts.proves(&Linear::constant(63).minus(&symbol("i"))));
        assert!(!facts.proves(&Linear::constant(62).minus(&symbol("i"))));
    }

    #[test]
    fn only_what_both_ways_prove_is_kept() {
        let (mut left, mut right) = (Facts::default(), Facts::default());
        left.learn_equal(&symbol("n"), &Linear::constant(63));
        right.learn(Linear::constant(63).minus(&symbol("n")));
        let both = left.meet(&right);
        assert!(both.proves(&Linear::constant(63).minus(&symbol("n"))));
        assert!(!both.proves(&symbol("n")));
    }
}
