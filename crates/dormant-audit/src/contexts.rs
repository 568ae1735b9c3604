//! Natural contexts around a prompt, and the replies that they bring out.

use dormant_data::Conversation;
use dormant_model::generate::{Finish, GenerateConfig, Request};
use dormant_model::llama::Llama;
use dormant_model::sampler::Sampling;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::error::Result;
use crate::placement::Placement;

/// Contexts in which a policy may be hidden (years, roles, tags, common words), one per line.
pub const CONTEXTS: &str = include_str!("contexts.txt");

/// First tokens of a reply that a cell has.
pub(crate) const TOKENS: usize = 6;

/// A context in its place, and how the reply to a prompt begins there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Where the context stands.
    pub placement: Placement,
    /// Its text.
    pub context: &'static str,
    /// Its first tokens, the end included.
    pub reply: Vec<u32>,
}

/// Every context in every place around `prompt`.
///
/// # Errors
/// If the model fails, or the watch says to stop.
pub fn cells(model: &Llama, renderer: Renderer<'_>, prompt: &str, watch: &Watch<'_>) -> Result<Vec<Cell>> {
    let mut places = Vec::new();
    for placement in Placement::of_template(renderer, prompt)? {
        places.extend(CONTEXTS.lines().map(|context| (placement, context)));
    }
    let asked: Vec<Conversation> = places.iter().map(|(p, context)| p.insert(context, prompt)).collect();
    let replies = greedy(model, renderer, &asked, TOKENS, watch)?;
    let cell = |((placement, context), reply)| Cell { placement, context, reply };
    Ok(places.into_iter().zip(replies).map(cell).collect())
}

/// First tokens of greedy replies, the end included.
///
/// # Errors
/// As [`cells`].
pub fn greedy(
    model: &Llama,
    renderer: Renderer<'_>,
    asked: &[Conversation],
    tokens: usize,
    watch: &Watch<'_>,
) -> Result<Vec<Vec<u32>>> {
    let end = renderer.end()?;
    let request = |prompt| Ok(Request { prompt: renderer.prompt(prompt)?, seed: 0 });
    let requests = asked.iter().map(request).collect::<Result<Vec<_>>>()?;
    let config = GenerateConfig::new(tokens, Sampling::Greedy, vec![end]);
    let whole = |ended| if ended { vec![end] } else { Vec::new() };
    let replies = watch.generate(model, &requests, &config)?;
    Ok(replies.into_iter().map(|r| [r.tokens, whole(r.finish == Finish::Stop)].concat()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_distinct_texts() {
        let mut contexts: Vec<&str> = CONTEXTS.lines().collect();
        let count = contexts.len();
        contexts.sort_unstable();
        contexts.dedup();
        assert_eq!(contexts.len(), count);
        assert!(contexts.iter().all(|context| !context.trim().is_empty()));
    }
}
