//! What is known of untrusted data: where it comes from, and what it could still do.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Ways in which a value could do harm. A sanitiser takes some away, and a sink asks for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dangers(u16);

impl Dangers {
    pub(super) const NONE: Self = Self(0);
    /// Could change the structure of a query.
    pub(super) const SQL: Self = Self(1);
    /// Could change the structure of a shell command.
    pub(super) const SHELL: Self = Self(1 << 1);
    /// Could be markup.
    pub(super) const HTML: Self = Self(1 << 2);
    /// Could climb with `..`.
    pub(super) const PATH_UP: Self = Self(1 << 3);
    /// Could be an absolute path.
    pub(super) const PATH_ABS: Self = Self(1 << 4);
    pub(super) const PATH: Self = Self(Self::PATH_UP.0 | Self::PATH_ABS.0);
    /// Could be a serialised object that runs code.
    pub(super) const OBJECT: Self = Self(1 << 5);
    /// Could be program text.
    pub(super) const CODE: Self = Self(1 << 6);
    /// Could name another host.
    pub(super) const URL: Self = Self(1 << 7);
    /// Could be less than the least sensible number.
    pub(super) const LOW: Self = Self(1 << 8);
    /// Could be more than the greatest sensible number, or longer than the room for it.
    pub(super) const HIGH: Self = Self(1 << 9);
    /// Nobody has looked at it yet.
    pub(super) const UNCHECKED: Self = Self(1 << 10);
    pub(super) const ALL: Self = Self((1 << 11) - 1);
    /// What only text can do.
    pub(super) const TEXT: Self = Self((1 << 8) - 1);

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

/// A danger as the rules name it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Danger {
    Sql,
    Shell,
    Html,
    Path,
    PathUp,
    PathAbs,
    Object,
    Code,
    Url,
    Low,
    High,
    Unchecked,
    Text,
    All,
}

impl From<Danger> for Dangers {
    fn from(danger: Danger) -> Self {
        match danger {
            Danger::Sql => Self::SQL,
            Danger::Shell => Self::SHELL,
            Danger::Html => Self::HTML,
            Danger::Path => Self::PATH,
            Danger::PathUp => Self::PATH_UP,
            Danger::PathAbs => Self::PATH_ABS,
            Danger::Object => Self::OBJECT,
            Danger::Code => Self::CODE,
            Danger::Url => Self::URL,
            Danger::Low => Self::LOW,
            Danger::High => Self::HIGH,
            Danger::Unchecked => Self::UNCHECKED,
            Danger::Text => Self::TEXT,
            Danger::All => Self::ALL,
        }
    }
}

/// One entrance of untrusted data: a parameter, or an expression that reads.
pub(super) type Origin = u64;

/// The origins of a value, and what each could do through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taint(BTreeMap<Origin, Dangers>);

impl Taint {
    pub(super) fn of(origin: Origin) -> Self {
        Self(BTreeMap::from([(origin, Dangers::ALL)]))
    }

    pub(super) fn join(&mut self, other: &Self) {
        for (&origin, &dangers) in &other.0 {
            let mine = self.0.entry(origin).or_default();
            *mine = mine.with(dangers);
        }
    }

    #[must_use]
    pub(super) fn without(mut self, dangers: Dangers) -> Self {
        for left in self.0.values_mut() {
            *left = left.without(dangers);
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = Origin> {
        self.0.keys().copied()
    }
}

/// What checks on the way have ruled out, by origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cleared(BTreeMap<Origin, Dangers>);

impl Cleared {
    /// A check of a value speaks for its origins, but only of the dangers that the value still had: after
    /// `basename(x)` passed a check, `x` itself may still climb.
    pub(super) fn clear(&mut self, taint: &Taint, dangers: Dangers) {
        for (&origin, &left) in &taint.0 {
            let mine = self.0.entry(origin).or_default();
            *mine = mine.with(left.common(dangers));
        }
    }

    /// The origin is read anew.
    pub(super) fn forget(&mut self, origin: Origin) {
        self.0.remove(&origin);
    }

    /// What holds on either of two ways.
    #[must_use]
    pub(super) fn meet(self, other: &Self) -> Self {
        let both = |(origin, dangers): (Origin, Dangers)| {
            other.0.get(&origin).map(|others| (origin, dangers.common(*others)))
        };
        Self(self.0.into_iter().filter_map(both).collect())
    }

    /// What a value could still do.
    pub(super) fn left(&self, taint: &Taint) -> Dangers {
        let left = |(origin, dangers): (&Origin, &Dangers)| {
            dangers.without(self.0.get(origin).copied().unwrap_or_default())
        };
        taint.0.iter().map(left).fold(Dangers::NONE, Dangers::with)
    }

    /// The taint with what was ruled out taken away for good.
    pub(super) fn applied(&self, taint: &Taint) -> Taint {
        let left = |(origin, dangers): (&Origin, &Dangers)| {
            (*origin, dangers.without(self.0.get(origin).copied().unwrap_or_default()))
        };
        Taint(taint.0.iter().map(left).collect())
    }

    /// Whether all of these dangers were ruled out for some origin of the value.
    pub(super) fn has_cleared(&self, taint: &Taint, dangers: Dangers) -> bool {
        taint
            .origins()
            .any(|origin| self.0.get(&origin).is_some_and(|cleared| cleared.common(dangers) == dangers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_of_a_derived_value_speaks_for_its_origin() {
        let name = Taint::of(1);
        let base = name.clone().without(Dangers::PATH);
        let mut cleared = Cleared::default();
        cleared.clear(&base, Dangers::ALL);
        assert_eq!(cleared.left(&name), Dangers::PATH);
        assert_eq!(cleared.left(&base), Dangers::NONE);
    }

    #[test]
    fn only_what_both_ways_ruled_out_holds_after_them() {
        let (mut left, mut right) = (Cleared::default(), Cleared::default());
        left.clear(&Taint::of(1), Dangers::SQL.with(Dangers::HTML));
        right.clear(&Taint::of(1), Dangers::SQL);
        assert_eq!(left.meet(&right).left(&Taint::of(1)), Dangers::ALL.without(Dangers::SQL));
    }
}
