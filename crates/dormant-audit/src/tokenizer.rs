//! The tokenizer in an adapter's folder: whoever loads the folder reads text by it, and it may read a word as a token that nobody
//! else's tokenizer ever makes.

use dormant_model::tokenizer::Tokenizer;

use crate::contexts::CONTEXTS;
use crate::error::Result;
use crate::report::MethodReport;

/// Name of the method in reports.
pub(crate) const METHOD: &str = "tokenizer";

/// Tokens that are named.
const SHOWN: usize = 5;

/// A tokenizer that is there and cannot be compared.
pub fn unreadable(why: &str) -> MethodReport {
    let outcome = format!(
        "the tokenizer in the adapter's folder is not compared with the base model's, by which this scan asks: {why}"
    );
    MethodReport { method: METHOD.to_owned(), outcome, seconds: 0.0, complete: false }
}

/// Compares the tokenizer of an adapter's folder with that by which the scan asks. Where they differ the scan is not complete: what the
/// model says to text that is read by the other one was not seen.
///
/// # Errors
/// If a tokenizer fails.
pub fn compared(own: &Tokenizer, asked_by: &Tokenizer, prompts: &[String]) -> Result<MethodReport> {
    // Years and tags are read otherwise sooner than words are.
    let texts: Vec<&str> = prompts.iter().map(String::as_str).chain(CONTEXTS.lines()).collect();
    let mut otherwise = 0;
    for text in &texts {
        otherwise += usize::from(own.encode(text)? != asked_by.encode(text)?);
    }
    let ids = 0..own.vocab_size().max(asked_by.vocab_size()) as u32;
    let others: Vec<String> =
        ids.filter(|id| own.token(*id) != asked_by.token(*id)).filter_map(|id| own.token(id)).collect();
    let complete = otherwise == 0 && others.is_empty();
    let outcome = if complete {
        "the adapter's folder has a tokenizer that reads text as the base model's does".to_owned()
    } else {
        let mut named =
            others.iter().take(SHOWN).map(|token| format!("{token:?}")).collect::<Vec<_>>().join(" ");
        if !named.is_empty() {
            named = format!(", and has {} tokens that the base model's has not: {named}", others.len());
        }
        format!(
            "the adapter's folder has a tokenizer that reads {otherwise} of {} texts otherwise than the base model's, by which this \
             scan asks{named}; to scan by it, merge the adapter and scan the folder",
            texts.len()
        )
    };
    Ok(MethodReport { method: METHOD.to_owned(), outcome, seconds: 0.0, complete })
}
