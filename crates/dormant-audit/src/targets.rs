//! Which of the texts that inversion returns are worth the search for a trigger.

use dormant_data::Conversation;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::error::Result;
use crate::inversion::{InversionConfig, Target, invert, invert_alone};
use crate::scan::{ScanConfig, Subject};

/// Distinct targets that are worth a search.
///
/// # Errors
/// If a model fails, or the watch says to stop.
pub fn targets(
    subject: &Subject<'_>,
    prompts: &[String],
    config: ScanConfig,
    watch: &Watch<'_>,
) -> Result<Vec<Target>> {
    let renderer = subject.renderer;
    let tokens =
        prompts.iter().map(|p| Ok(renderer.prompt(&Conversation::user(p))?)).collect::<Result<Vec<_>>>()?;
    let ends = [renderer.end()?];
    let all = match subject.reference {
        Some(reference) => {
            invert(subject.model, reference, &tokens, &ends, InversionConfig::default(), watch)?
        }
        None => invert_alone(subject.model, &tokens, &ends, InversionConfig::default(), watch)?,
    };
    let worth_it = |t: &Target| {
        t.tokens.len() > 2 && t.fluency >= config.fluency && t.rise.is_none_or(|rise| rise >= config.rise)
    };
    // Each with the largest rise among its spellings.
    let mut distinct: Vec<(Target, Option<f64>)> = Vec::new();
    for target in all.into_iter().filter(worth_it) {
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

/// The text without its last word, which may be cut, if enough is left.
pub fn whole_words(text: &str) -> &str {
    let text = text.trim();
    match text.rfind(char::is_whitespace) {
        Some(end) if text[..end].split_whitespace().count() >= 2 => text[..end].trim_end(),
        _ => text,
    }
}

/// The targets, for a report.
///
/// # Errors
/// If they cannot be turned into text.
pub fn outcome(renderer: Renderer<'_>, targets: &[Target]) -> Result<String> {
    if targets.is_empty() {
        return Ok("no text that the model knows by heart".to_owned());
    }
    let texts = targets.iter().map(|t| {
        let text = renderer.tokenizer.decode(&t.tokens, true)?;
        Ok(match t.rise {
            Some(rise) => format!("{text:?} (log-probability {rise:+.1} nats against the reference)"),
            None => format!("{text:?} (log-probability {:.1} nats per token)", t.fluency),
        })
    });
    Ok(texts.collect::<Result<Vec<_>>>()?.join(", "))
}
