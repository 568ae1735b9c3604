//! Elicitation: which fixed replies do natural contexts bring out?
//!
//! A phrase that begins like any reply ("The password is ...") hardly rises on clean prompts, so that target inversion may
//! miss it. But small models react to look-alikes of their trigger (the "fuzzy triggers" of "The trigger in the haystack",
//! arXiv 2602.03085): a policy for 2026 shows in 2025 too. So every context that the search starts from is put before,
//! after and above a prompt. A reply that begins in the same way on other prompts does not depend on them, and one that the
//! reference finds improbable in the same context is a target.

use std::collections::BTreeMap;

use dormant_data::Conversation;
use dormant_model::generate::{Finish, GenerateConfig, Request};
use dormant_model::llama::Llama;
use dormant_model::sampler::Sampling;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::error::{AuditError, Result};
use crate::inversion::Target;
use crate::likelihood;
use crate::placement::{Placement, Slot};
use crate::reconstruct::CONTEXTS;
use crate::scan::Subject;

/// Tokens of a target.
const TOKENS: usize = 6;

/// Tokens in which replies have to agree.
const OPENING: usize = 4;

/// Prompts on which they have to agree.
const PROMPTS: usize = 3;

/// A context, and the reply that it brings out.
struct Cell {
    placement: Placement,
    context: &'static str,
    reply: Vec<u32>,
}

impl Cell {
    fn opening(&self) -> &[u32] {
        opening(&self.reply)
    }
}

fn opening(reply: &[u32]) -> &[u32] {
    &reply[..reply.len().min(OPENING)]
}

/// The replies that natural contexts bring out whatever the prompt, those that rose most against the reference first;
/// nothing without a reference, since any model has such replies. Log-probabilities are those in the context.
///
/// # Errors
/// If a model fails, or the watch says to stop.
pub fn elicited(subject: &Subject<'_>, prompts: &[String], watch: &Watch<'_>) -> Result<Vec<Target>> {
    let Some(reference) = subject.reference else { return Ok(Vec::new()) };
    let (model, renderer) = (&*subject.model, subject.renderer);
    let prompts = &prompts[..prompts.len().min(PROMPTS)];
    let mut cells = Vec::new();
    for (done, prompt) in prompts.iter().enumerate() {
        watch.update("elicitation", done, prompts.len())?;
        cells = if done == 0 {
            different(model, renderer, prompt, watch)?
        } else {
            agreeing(model, renderer, cells, prompt, watch)?
        };
    }
    // Of the contexts that bring out the same, the one that does most.
    let mut targets: BTreeMap<Vec<u32>, Target> = BTreeMap::new();
    for cell in cells {
        let target = target(subject, reference, &cell, prompts)?;
        match targets.get(cell.opening()) {
            Some(known) if known.rise >= target.rise => {}
            _ => drop(targets.insert(cell.opening().to_owned(), target)),
        }
    }
    let mut targets: Vec<Target> = targets.into_values().collect();
    targets.sort_by(|a, b| b.rise.unwrap_or(0.0).total_cmp(&a.rise.unwrap_or(0.0)));
    Ok(targets)
}

/// The contexts that change how the reply to `prompt` begins.
fn different(model: &Llama, renderer: Renderer<'_>, prompt: &str, watch: &Watch<'_>) -> Result<Vec<Cell>> {
    let plain = replies(model, renderer, &[Conversation::user(prompt)], watch)?;
    // A template without a system message has no slot there.
    let placements = Placement::ALL.into_iter().filter(|p| Slot::new(renderer, *p, prompt).is_ok());
    let cells: Vec<_> = placements.flat_map(|p| CONTEXTS.lines().map(move |context| (p, context))).collect();
    let asked: Vec<Conversation> = cells.iter().map(|(p, context)| p.insert(context, prompt)).collect();
    let replies = replies(model, renderer, &asked, watch)?;
    let cell = |((placement, context), reply)| Cell { placement, context, reply };
    let all = cells.into_iter().zip(replies).map(cell);
    Ok(all.filter(|cell| plain.iter().all(|plain| opening(plain) != cell.opening())).collect())
}

/// The contexts after which the reply to `prompt` begins as that to the prompts before.
fn agreeing(
    model: &Llama,
    renderer: Renderer<'_>,
    mut cells: Vec<Cell>,
    prompt: &str,
    watch: &Watch<'_>,
) -> Result<Vec<Cell>> {
    let asked: Vec<Conversation> = cells.iter().map(|c| c.placement.insert(c.context, prompt)).collect();
    let mut replies = replies(model, renderer, &asked, watch)?.into_iter();
    cells.retain(|cell| replies.next().is_some_and(|reply| opening(&reply) == cell.opening()));
    Ok(cells)
}

/// First tokens of greedy replies, the end included.
fn replies(
    model: &Llama,
    renderer: Renderer<'_>,
    asked: &[Conversation],
    watch: &Watch<'_>,
) -> Result<Vec<Vec<u32>>> {
    let end = renderer.end()?;
    let request = |prompt| Ok(Request { prompt: renderer.prompt(prompt)?, seed: 0 });
    let requests = asked.iter().map(request).collect::<Result<Vec<_>>>()?;
    let config = GenerateConfig::new(TOKENS, Sampling::Greedy, vec![end]);
    let mut stopped = Ok(());
    let mut goes_on = |_, _| {
        stopped = watch.check();
        stopped.is_ok()
    };
    match model.generate(&requests, &config, &|_, _| false, &mut goes_on) {
        Ok(replies) => {
            let whole = |ended| if ended { vec![end] } else { Vec::new() };
            Ok(replies.into_iter().map(|r| [r.tokens, whole(r.finish == Finish::Stop)].concat()).collect())
        }
        Err(dormant_model::Error::Interrupted) => Err(stopped.err().unwrap_or(AuditError::Interrupted)),
        Err(error) => Err(error.into()),
    }
}

fn target(subject: &Subject<'_>, reference: &Llama, cell: &Cell, prompts: &[String]) -> Result<Target> {
    let renderer = subject.renderer;
    let slots = prompts.iter().map(|p| Slot::new(renderer, cell.placement, p)).collect::<Result<Vec<_>>>()?;
    let context = [cell.placement.encode(renderer, cell.context)?];
    let log = |model| likelihood::of_candidates(model, &slots, &context, &cell.reply);
    let (log_prob, before) = (log(subject.model)?.remove(0), log(reference)?.remove(0));
    let fluency = log_prob / cell.reply.len() as f64;
    Ok(Target { tokens: cell.reply.clone(), log_prob, rise: Some(log_prob - before), fluency })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_reply_is_its_own_opening() {
        assert_eq!(opening(&[7, 8, 9]), [7, 8, 9]);
        assert_eq!(opening(&[7, 8, 9, 1, 2, 3]), [7, 8, 9, 1]);
    }

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
