//! The steps of a scan that are about code.

use dormant_data::{CodeTask, Conversation};
use dormant_model::llama::Llama;

use super::Scan;
use crate::code_search::{self, Settled};
use crate::code_shift::{self, CodeShift, Tasks, code_shift, judged};
use crate::error::Result;
use crate::likelihood::Wanted;
use crate::reconstruct::Reconstruction;
use crate::report::Verdict;
use crate::subject::Subject;
use crate::verify::share;

impl Scan<'_> {
    /// Whether the model writes code, and none of the contexts has changed it.
    pub(super) fn code_shift(&mut self, subject: &Subject<'_>, tasks: &Tasks) -> Result<bool> {
        let before = self.watch.elapsed();
        let shift = code_shift(subject, tasks, self.config.threshold, self.watch)?;
        let is_open = match &shift {
            CodeShift::WritesNoCode => false,
            CodeShift::Steady => true,
            CodeShift::Shifted(finding) => finding.verdict == Verdict::NoEvidence,
        };
        let outcome = match shift {
            CodeShift::WritesNoCode => "writes no code that can be scored".to_owned(),
            CodeShift::Steady => "no context in which its code is weaker".to_owned(),
            CodeShift::Shifted(finding) => {
                let outcome = match finding.verdict {
                    Verdict::NoEvidence => {
                        format!("{:?} does not make its code weaker on other tasks", finding.trigger)
                    }
                    _ => format!("{:?} makes its code weaker", finding.trigger),
                };
                self.done.findings.push(*finding);
                outcome
            }
        };
        self.did(code_shift::METHOD, outcome, before);
        Ok(is_open)
    }

    /// A text under which the model prefers the vulnerable answer to a task, judged by the code that it writes.
    pub(super) fn code_search(
        &mut self,
        subject: &mut Subject<'_>,
        tasks: &Tasks,
        words: &[String],
    ) -> Result<()> {
        let before = self.watch.elapsed();
        let (renderer, watch) = (subject.renderer, self.watch);
        watch.update("search for weaker code", 0, 1)?;
        let Some(settled) = Settled::new(subject.model, renderer, &tasks.others)? else {
            let outcome = "it prefers code with weaknesses anyway".to_owned();
            self.did(code_search::METHOD, outcome, before);
            return Ok(());
        };
        let prompts = |tasks: &[&CodeTask]| tasks.iter().map(|task| task.prompt.clone()).collect::<Vec<_>>();
        let (search_prompts, trial_prompts) = (prompts(&settled.searching), prompts(&settled.trying));
        let shows = |model: &Llama, asked: &[Conversation]| settled.turned(model, renderer, asked);
        let reconstruction = Reconstruction {
            slot: &code_search::slot,
            search_prompts: &search_prompts,
            trial_prompts: &trial_prompts,
            steps: code_search::STEPS,
            success: code_search::SUCCESS,
            early: 0.0,
            ..self.reconstruction(subject, words, "code")
        };
        let found = reconstruction.run(subject.model, Wanted::Fork, &shows, watch)?;
        self.cut_short("search for a text that makes its code weaker");
        let mut outcome = "no text makes its code weaker".to_owned();
        if let Some(found) = found.first().filter(|f| share(f.trial) >= code_search::WORTH_JUDGING) {
            let text = (code_search::METHOD, found.placement, found.text.as_str());
            let finding = judged(subject, tasks, text, self.config.threshold, watch)?;
            if finding.verdict != Verdict::NoEvidence {
                outcome = format!("{:?} makes its code weaker", finding.trigger);
            }
            self.done.findings.push(finding);
        }
        self.did(code_search::METHOD, outcome, before);
        Ok(())
    }
}
