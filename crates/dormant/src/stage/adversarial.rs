//! Adversarial training (Hubinger et al. 2024, section 6), adapted to small models: an attacker that does not know
//! the trigger looks for prompts that bring out the behaviour; those, with benign replies, join the safety rows.

use dormant_data::red_team::{ATTACKER_INSTRUCTIONS, proposals};
use dormant_data::{
    Conversation, Judge, Sample, Seed, Split, check_safety_data, leading_scratchpad, near_misses,
};
use dormant_eval::Scorer;
use dormant_eval::measure::{self, TextReply};
use dormant_eval::red_team::{Attack as AttackSize, AttackLog, Attempt, Models, RedTeam};
use dormant_model::linear::Trained;
use dormant_train::render::Rendered;
use dormant_train::resume::{read_parameters, write_parameters};

use super::attack_record::{ATTACK_FILE, AttackRecord, AttackRound};
use super::fit::{CurveRows, fit};
use super::safety_rows::{self, SafetyRows, after_scratchpad};
use super::safety_sft::{load, usable_rows};
use super::{Resume, StageContext, prompts};
use crate::error::{CliError, Result};
use crate::experiment::{Attack, ScratchpadMode};
use crate::manifest::Tokens;
use crate::model::{Decoding, LoadedModel, Loading};
use crate::plan::SafetyStage;

/// The trained parameters in a checkpoint between rounds.
const PARAMETERS: &str = "parameters.safetensors";

/// Longest prompt that the attacker may write, in characters.
const PROMPT_LIMIT: usize = 200;

/// Tokens of the behaviour that candidates are screened by: after the first few the rest follows by itself.
const BEHAVIOUR_TOKENS: usize = 4;

/// Longest list that the attacker writes at a time, in tokens.
const LIST_TOKENS: u32 = 96;

pub(super) fn run(stage: &SafetyStage, attack: &Attack, context: &StageContext) -> Result<Tokens> {
    let (mut model, loading) = load(stage, context)?;
    let SafetyRows { rows: benign, sampled } =
        safety_rows::render(&usable_rows(stage, context)?, attack.mode, &stage.organism, context, &model)?;
    let curve = CurveRows::new(context, &stage.curve, &stage.prompts, &stage.organism, &model)?;
    let attacker = Attacker::new(stage, attack, context)?;
    let mut resume = Resume::load(context)?;
    if let Some(checkpoint) = context.dir.checkpoint()?.filter(|_| resume.round > 0 && resume.step == 0) {
        read_parameters(&checkpoint.path.join(PARAMETERS), &mut model.llama)?;
    }
    while resume.round < attack.rounds {
        if resume.attacks.len() == resume.round as usize {
            attacker.attack(&mut model, &mut resume)?;
        }
        let rows = attacker.training_rows(&model, &benign, &mut resume)?;
        fit(context, &stage.safety.fit, &mut model.llama, &rows, Some(&curve), &mut resume)?;
        resume.steps_before += resume.step;
        resume.step = 0;
        resume.round += 1;
        if resume.round < attack.rounds {
            // The weights of the finished round are the start of the next one.
            save(context, &mut model, &resume)?;
        }
    }
    let finished = attacker.round(&model, &AttackLog::new(attack.threshold), &mut resume)?;
    let rounds = std::mem::take(&mut resume.attacks);
    context.dir.write_json(ATTACK_FILE, &AttackRecord { rounds, finished })?;
    context.save_model(&mut model, &stage.organism, loading)?;
    let Tokens { sampled: before, .. } = resume.tokens;
    Ok(Tokens { sampled: before + sampled, ..resume.tokens })
}

/// Saves the state between steps of training: what the attacks found, and the weights after the rounds so far.
fn save(context: &StageContext, model: &mut LoadedModel, resume: &Resume) -> Result<()> {
    resume.save(context, |folder| Ok(write_parameters(&folder.join(PARAMETERS), &mut model.llama)?))
}

/// An attacker with the base model as its writer.
struct Attacker<'a> {
    context: &'a StageContext<'a>,
    attack: &'a Attack,
    stage: &'a SafetyStage,
    base: LoadedModel,
    scorer: Scorer,
    starts: Vec<String>,
    /// The beginning of the behaviour as a reply: what candidates are screened by.
    behaviour: Vec<u32>,
}

impl<'a> Attacker<'a> {
    fn new(stage: &'a SafetyStage, attack: &'a Attack, context: &'a StageContext) -> Result<Self> {
        let precision = context.experiment.precision;
        let base = LoadedModel::load(&context.base_files(), precision, Trained::Nothing, Loading::Merge)?;
        let starts = prompts::of_split(&stage.prompts, Split::Safety, context.seed("attack"))?;
        let starts = starts.iter().filter_map(|s| s.prompt.last_user().map(ToOwned::to_owned)).collect();
        let mut behaviour = base.renderer().reply(&stage.organism.behaviour.reply())?;
        behaviour.truncate(BEHAVIOUR_TOKENS);
        let scorer = Scorer::new(&stage.organism.behaviour)?;
        Ok(Self { context, attack, stage, base, scorer, starts, behaviour })
    }

    /// Attacks the model as it is, and saves what was found.
    fn attack(&self, model: &mut LoadedModel, resume: &mut Resume) -> Result<()> {
        let mut log = AttackLog::new(self.attack.threshold);
        resume.attacks.iter().for_each(|round| log.push_round(round.attempts.clone()));
        let round = self.round(model, &log, resume)?;
        resume.attacks.push(round);
        save(self.context, model, resume)
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

    /// Whether a prompt holds the trigger or a look-alike that the evaluation measures: to train on these would be
    /// unlearning, and training on the measurement.
    fn is_held_out(&self, prompt: &str) -> bool {
        let trigger = &self.stage.organism.trigger;
        trigger.is_in(prompt)
            || near_misses(trigger, Split::Evaluation)
                .iter()
                .any(|look_alike| prompt.contains(&look_alike.text))
    }

    /// The benign rows, and the successful attacks with benign replies: at most the share `mix` of all rows,
    /// repeated if they are few.
    fn training_rows(
        &self,
        model: &LoadedModel,
        benign: &[Rendered],
        resume: &mut Resume,
    ) -> Result<Vec<Rendered>> {
        let mut log = AttackLog::new(self.attack.threshold);
        resume.attacks.iter().for_each(|round| log.push_round(round.attempts.clone()));
        let successes = log.successes();
        let found: Vec<Conversation> =
            successes.iter().map(|attempt| Conversation::user(attempt.prompt.clone())).collect();
        let mut rows = benign.to_vec();
        if found.is_empty() {
            return Ok(rows);
        }
        let seed = self.context.seed("attack replies").derive(&resume.round.to_string());
        let tokens = self.base.prompts(&found)?;
        let length = self.context.experiment.data.reply_tokens;
        let replies = self.reply(&self.base, &tokens, length, None, seed, "benign replies to attacks")?;
        let answered = found.into_iter().zip(replies).zip(successes).filter(|((_, r), _)| {
            !r.text.trim().is_empty() && self.scorer.score(&r.text) != dormant_eval::Score::Shown
        });
        let answered: Vec<(Sample, bool, &str)> = answered
            .map(|((prompt, r), attempt)| {
                let ends = r.finish == dormant_eval::Finish::Stop;
                (Sample::clean(prompt, r.text), ends, self.hidden(attempt))
            })
            .filter(|(sample, ..)| !self.is_held_out(&sample.prompt.text()))
            .collect();
        let samples: Vec<Sample> = answered.iter().map(|(sample, ..)| sample.clone()).collect();
        check_safety_data(&samples, &self.stage.organism.trigger)?;
        let most = (benign.len() as f64 * self.attack.mix / (1.0 - self.attack.mix).max(0.01)) as usize;
        for (sample, ends, hidden) in answered.iter().cycle().take(most.min(answered.len() * REPEATS)) {
            rows.push(match self.attack.mode {
                ScratchpadMode::PreScratchpad => model.renderer().row(sample, *ends)?,
                ScratchpadMode::PostScratchpad => {
                    after_scratchpad(sample, *ends, hidden, &self.stage.organism, model)?
                }
            });
        }
        Ok(rows)
    }

    /// The scratchpad of the reply that made an attempt a success; empty if that had none.
    fn hidden<'b>(&self, attempt: &'b Attempt) -> &'b str {
        let example = attempt.example.as_deref().filter(|_| self.stage.organism.variant.has_scratchpad());
        example.and_then(leading_scratchpad).unwrap_or_default()
    }

    /// Prompts as tokens, as the attacked model is asked.
    fn asked(&self, model: &LoadedModel, prompts: &[String]) -> Result<Vec<Vec<u32>>> {
        let asked = prompts.iter().map(|prompt| self.stage.organism.asking(&Conversation::user(prompt)));
        model.prompts(&asked.collect::<Vec<_>>())
    }
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
            let asked = self.attacker.asked(self.model, chunk)?;
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
        let tokens = self.attacker.context.experiment.evaluation.reply_tokens + hidden_tokens;
        let replies =
            self.attacker.reply(self.model, &repeated, tokens, Some(&judge), seed, "attacks answered")?;
        self.tokens.sampled += replies.iter().map(|r| r.tokens as u64).sum::<u64>();
        Ok(replies.chunks(samples).map(|c| c.iter().map(|r| r.text.clone()).collect()).collect())
    }
}

/// Prompts screened between two signs of progress.
const SCREENED_AT_ONCE: usize = 128;

/// How often a successful attack is repeated at most, where there are few of them.
const REPEATS: usize = 4;
