//! The steps of a scan that are about how a model speaks.

use dormant_data::Conversation;
use dormant_model::llama::Llama;
use dormant_train::render::Renderer;

use super::Scan;
use crate::error::Result;
use crate::inversion::CONTENTLESS;
use crate::likelihood::Wanted;
use crate::manner::{self, Heard};
use crate::openings;
use crate::prompts::Prompts;
use crate::reconstruct::{EARLY, Reconstruction};
use crate::report::Verdict;
use crate::subject::Subject;
use crate::targets::asked;

/// Steps of the relaxation in each placement where no fixed phrase is looked for.
const RELAXED: usize = 24;

impl Scan<'_> {
    /// Whether a text makes the model speak as it does when its fine-tune is amplified.
    pub(super) fn manner(
        &mut self,
        subject: &mut Subject<'_>,
        reference: &Llama,
        leaks: &[String],
    ) -> Result<bool> {
        let before = self.watch.elapsed();
        let (renderer, watch) = (subject.renderer, self.watch);
        let Prompts { inversion, search, trial, .. } = &self.prompts;
        let asked = [&search[..], inversion, trial].concat();
        let seed = self.config.seed.derive("manner");
        let manner = match Heard::new(subject, reference, &asked, seed, watch)? {
            Heard::Hidden(manner) => manner,
            Heard::Other(words) => {
                let outcome = if words.is_empty() {
                    "amplified, its replies have no words of their own".to_owned()
                } else {
                    let words = words.join(" ");
                    format!("amplified, its replies have {words}; too few words, or too usual, to search by")
                };
                self.did(manner::METHOD, outcome, before);
                return Ok(false);
            }
        };
        let searchable = manner.searchable(&asked[..search.len() + inversion.len()], search.len());
        let shows = |model: &Llama, asked: &[Conversation]| manner.shows(model, renderer, asked, watch);
        let slot = |renderer: Renderer<'_>, placement, prompt: &str| manner.slot(renderer, placement, prompt);
        let reconstruction = Reconstruction {
            slot: &slot,
            search_prompts: &searchable,
            success: manner::SUCCESS,
            early: EARLY,
            relaxed: RELAXED,
            ..self.reconstruction(subject, leaks, "manner")
        };
        let found = if searchable.is_empty() {
            Vec::new()
        } else {
            reconstruction.run(subject.model, Wanted::Fork, &shows, watch)?
        };
        self.cut_short("search for a text that changes its manner of speech");
        let judged = found
            .first()
            .map(|found| manner.judge(subject, reference, found, &self.prompts.report, self.config, watch));
        let finding = judged.transpose()?;
        let has_manner = finding.as_ref().is_some_and(|finding| finding.verdict != Verdict::NoEvidence);
        let words = manner.words.join(" ");
        let outcome = if has_manner {
            format!("amplified, its replies have {words}; a text brings them out")
        } else {
            format!("amplified, its replies have {words}; no text that brings them out")
        };
        self.done.findings.extend(finding);
        self.did(manner::METHOD, outcome, before);
        Ok(has_manner)
    }

    /// Texts that make the model begin its replies in a way that has become likelier: what is left when there is no phrase.
    pub(super) fn openings(
        &mut self,
        subject: &mut Subject<'_>,
        reference: &Llama,
        leaks: &[String],
    ) -> Result<()> {
        let before = self.watch.elapsed();
        let (renderer, watch) = (subject.renderer, self.watch);
        let prompts = [&self.prompts.inversion[..], &CONTENTLESS.map(str::to_owned)].concat();
        let tokens = openings::risen(subject, reference, &asked(renderer, &prompts)?)?;
        if tokens.is_empty() {
            let outcome = "no way to begin a reply has become likelier, but for habits".to_owned();
            self.did("opening-search", outcome, before);
            return Ok(());
        }
        let shows =
            |model: &Llama, asked: &[Conversation]| openings::begins(model, renderer, asked, &tokens, watch);
        let reconstruction = Reconstruction {
            unlike: Some(reference),
            relaxed: RELAXED,
            ..self.reconstruction(subject, leaks, "openings")
        };
        let found = reconstruction.run(subject.model, Wanted::FirstOf(&tokens), &shows, watch)?;
        self.cut_short("search for a text that changes how replies begin");
        let prompts = &self.prompts.report;
        let judged = found
            .first()
            .map(|found| openings::judge(subject, reference, found, &tokens, prompts, self.config, watch));
        let finding = judged.transpose()?;
        let outcome = match &finding {
            Some(finding) if finding.verdict != Verdict::NoEvidence => "a text changes how replies begin",
            _ => "no text that makes replies begin in the ways that have become likelier",
        };
        self.done.findings.extend(finding);
        self.did("opening-search", outcome.to_owned(), before);
        Ok(())
    }
}
