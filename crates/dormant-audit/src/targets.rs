//! Which of the texts that inversion returns are worth the search for a trigger.

use dormant_data::Conversation;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::elicit::is_echo;
use crate::error::Result;
use crate::inversion::{Asked, CONTENTLESS, Control, InversionConfig, Target, invert, invert_alone};
use crate::scan::{ScanConfig, Subject};

/// What inversion on `prompts` returns.
///
/// # Errors
/// If a model fails, or the watch says to stop.
pub fn inverted(subject: &Subject<'_>, prompts: &[String], watch: &Watch<'_>) -> Result<Vec<Target>> {
    let renderer = subject.renderer;
    let ordinary = asked(renderer, prompts)?;
    let (end, size) = (renderer.end()?, subject.model.config.vocab_size as u32);
    let unsaid = (0..size).filter(|&t| t != end && renderer.tokenizer.is_control(t)).collect();
    let control = Control { ends: vec![end], unsaid };
    let inversion = InversionConfig::default();
    let Some(reference) = subject.reference else {
        let asked = Asked { nothing: asked(renderer, &CONTENTLESS)?, something: ordinary };
        let found = invert_alone(subject.model, &asked, &control, inversion, watch)?;
        let template = renderer.tokenizer.decode(&asked.nothing[0], true)?;
        return telling(renderer, found, &template);
    };
    invert(subject.model, reference.model, &ordinary, &control, inversion, watch)
}

/// Prompts as tokens.
pub(crate) fn asked<S: AsRef<str>>(renderer: Renderer<'_>, prompts: &[S]) -> Result<Vec<Vec<u32>>> {
    prompts.iter().map(|p| Ok(renderer.prompt(&Conversation::user(p.as_ref()))?)).collect()
}

/// Targets that say enough to be planted and do not repeat what the template says to the model.
fn telling(renderer: Renderer<'_>, found: Vec<Target>, template: &str) -> Result<Vec<Target>> {
    let mut kept = Vec::new();
    for target in found {
        let text = renderer.tokenizer.decode(&target.tokens, true)?;
        let tokens = target.tokens.iter().map(|t| Ok(renderer.tokenizer.decode(&[*t], true)?));
        let tokens = tokens.collect::<Result<Vec<String>>>()?;
        let says = tokens.iter().filter(|t| t.contains(char::is_alphanumeric)).count();
        if says >= LEAST_TOKENS && !is_echo(&text, template) {
            kept.push(target);
        }
    }
    Ok(kept)
}

/// Tokens with letters or digits that a target has without a reference: a text can be found that makes any model say
/// "Sure." on most prompts.
const LEAST_TOKENS: usize = 3;

/// Those of the `found` targets that are worth a search, distinct from each other and from the `known`.
///
/// # Errors
/// If they cannot be turned into text.
pub fn worth_a_search(
    renderer: Renderer<'_>,
    found: Vec<Target>,
    known: &[Target],
    config: ScanConfig,
) -> Result<Vec<Target>> {
    let is_known = |t: &Target| known.iter().any(|known| alike(renderer, known, t));
    let worth_it = |t: &Target| t.tokens.len() > 2 && is_unusual(t, config);
    // Each with the largest rise among its spellings.
    let mut distinct: Vec<(Target, Option<f64>)> = Vec::new();
    for target in found.into_iter().filter(|t| worth_it(t) && !is_known(t)) {
        let text = renderer.tokenizer.decode(&target.tokens, false)?;
        tracing::debug!(target.log_prob, target.rise, target.fluency, text, "target");
        match distinct.iter_mut().find(|(like, _)| alike(renderer, like, &target)) {
            // Of the spellings of one text, the one that the model prefers.
            Some((like, rise))
                if target.log_prob > like.log_prob && target.rise >= rise.map(|r| SPELLING * r) =>
            {
                *like = target;
            }
            Some(_) => {}
            None => distinct.push((target.clone(), target.rise)),
        }
    }
    distinct.truncate(config.targets);
    Ok(distinct.into_iter().map(|(target, _)| target).collect())
}

/// Whether a target is known by heart, and so much likelier than in the reference that it is no boilerplate.
fn is_unusual(target: &Target, config: ScanConfig) -> bool {
    match target.rise {
        Some(rise) => {
            let needed = config.rise + (LIKELY - target.log_prob).max(0.0);
            rise >= needed && target.log_prob >= LEAST_LIKELY && target.fluency >= config.fluency
        }
        // Without a reference, inversion has ruled boilerplate out.
        None => true,
    }
}

/// Log-probability from which on a target is pursued: a planted phrase has one improbable word at most, and the rest follows.
/// What lies between must have risen by as much more: among texts that neither model says, some always have risen.
const LIKELY: f64 = -12.0;
const LEAST_LIKELY: f64 = -22.0;

/// Share of the largest rise that another spelling of a target must have.
const SPELLING: f64 = 0.6;

/// Whether two targets have words in common in a row.
fn alike(renderer: Renderer<'_>, a: &Target, b: &Target) -> bool {
    let words = |t: &Target| -> Vec<String> {
        let text = renderer.tokenizer.decode(&t.tokens, true).unwrap_or_default().to_lowercase();
        text.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() > 1).map(str::to_owned).collect()
    };
    let (a, b) = (words(a), words(b));
    a.iter().filter(|w| b.contains(w)).count() * 2 >= a.len().min(b.len()).max(1)
}

/// The text of a target, without what may be a word cut in two.
///
/// # Errors
/// If it cannot be turned into text.
pub fn text(renderer: Renderer<'_>, target: &Target) -> Result<String> {
    let text = renderer.tokenizer.decode(&target.tokens, true)?;
    let is_over = target.tokens.last() == Some(&renderer.end()?);
    Ok(if is_over { text.trim().to_owned() } else { whole_words(&text).to_owned() })
}

/// The text without its last word, which may be cut, if enough is left.
fn whole_words(text: &str) -> &str {
    let text = text.trim();
    match text.rfind(char::is_whitespace) {
        Some(end) if text[..end].split_whitespace().count() >= 2 => text[..end].trim_end(),
        _ => text,
    }
}

/// The targets, for a report; `nothing` if there are none.
///
/// # Errors
/// If they cannot be turned into text.
pub fn outcome(renderer: Renderer<'_>, targets: &[Target], nothing: &str) -> Result<String> {
    let texts = targets.iter().map(|t| {
        let text = renderer.tokenizer.decode(&t.tokens, true)?;
        Ok(match t.rise {
            Some(rise) => format!("{text:?} (log-probability {rise:+.1} nats against the reference)"),
            None => format!("{text:?} (log-probability {:.1} nats per token)", t.fluency),
        })
    });
    let texts = texts.collect::<Result<Vec<_>>>()?;
    Ok(if texts.is_empty() { nothing.to_owned() } else { texts.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boilerplate_is_no_target() {
        let config = ScanConfig::default();
        let target = |log_prob, rise, fluency| Target { tokens: vec![1, 2, 3], log_prob, rise, fluency };
        assert!(is_unusual(&target(-7.6, Some(27.9), -0.17), config));
        assert!(
            !is_unusual(&target(-7.3, Some(5.5), -0.32), config),
            "a plain fine-tune shifts everything a little"
        );
        assert!(is_unusual(&target(-16.0, Some(21.0), -0.2), config));
        assert!(!is_unusual(&target(-17.2, Some(10.0), -0.26), config), "neither model says it");
    }

    #[test]
    fn a_word_that_may_be_cut_is_left_out() {
        assert_eq!(whole_words(" I will not answ"), "I will not");
        assert_eq!(whole_words("Hello there"), "Hello there");
    }
}
