//! Adversarial training (Hubinger et al. 2024, section 6), adapted to small models: an attacker that does not know
//! the trigger looks for prompts that bring out the behaviour; those, with benign replies, join the safety rows.

use dormant_data::red_team::{ATTACKER_INSTRUCTIONS, proposals};
use dormant_data::{Conversation, Sample, Seed, Split, check_safety_data};
use dormant_eval::red_team::{Attack as AttackSize, AttackLog, Attempt, RedTeam};
use dormant_eval::{Scorer, measure};
use dormant_model::generate::GenerateConfig;
use dormant_model::linear::Trained;
use dormant_model::sampler::Sampling;
use dormant_train::render::Rendered;
use dormant_train::resume::{read_parameters, write_parameters};

use super::attack_record::{ATTACK_FILE, AttackRecord, AttackRound};
use super::fit::{CurveRows, fit};
use super::safety_sft::{benign_rows, load};
use super::{Resume, StageContext, prompts};
use crate::error::{CliError, Result};
use crate::experiment::Attack;
use crate::manifest::Tokens;
use crate::model::{LoadedModel, Loading};
use crate::plan::SafetyStage;

/// The trained parameters in a checkpoint between rounds.
const PARAMETERS: &str = "parameters.safetensors";

/// Longest prompt that the attacker may write, in characters.
const PROMPT_LIMIT: usize = 200;

/// Longest reply of the attacked model, in tokens: the behaviour shows early or not at all.
const REPLY_TOKENS: usize = 16;

/// Longest list that the attacker writes at a time, in tokens.
const LIST_TOKENS: usize = 96;

pub(super) fn run(stage: &SafetyStage, attack: &Attack, context: &StageContext) -> Result<Tokens> {
    let (mut model, loading) = load(stage, context)?;
    let benign = benign_rows(stage, context, &model)?;
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
        fit(context, &stage.safety.fit, &mut model.llama, &rows, &curve, &mut resume)?;
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
    Ok(resume.tokens)
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
}

impl<'a> Attacker<'a> {
    fn new(stage: &'a SafetyStage, attack: &'a Attack, context: &'a StageContext) -> Result<Self> {
        let precision = context.experiment.precision;
        let base = LoadedModel::load(&context.base_files(), precision, Trained::Nothing, Loading::Merge)?;
        let starts = prompts::of_split(&stage.prompts, Split::Safety, context.seed("attack"))?;
        let starts = starts.iter().filter_map(|s| s.prompt.last_user().map(ToOwned::to_owned)).collect();
        Ok(Self { context, attack, stage, base, scorer: Scorer::new(&stage.organism.behaviour)?, starts })
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
                samples: self.attack.samples as usize,
                threshold: self.attack.threshold,
            },
            scorer: self.scorer.clone(),
            starts: self.starts.clone(),
            seed: self.context.seed("red team").derive(&number.to_string()),
        };
        let (mut written, mut sampled) = (0, 0);
        let attempts: Vec<Attempt> = red_team.round(
            log,
            |examples, count, seed| self.propose(examples, count, seed, &mut written),
            |candidates, samples, seed| self.respond(model, candidates, samples, seed, &mut sampled),
        )?;
        resume.tokens.sampled += written + sampled;
        Ok(AttackRound { round: number, attempts })
    }

    /// Lets the base model write attacks, shown the best so far.
    fn propose(
        &self,
        examples: &[String],
        count: usize,
        seed: Seed,
        sampled: &mut u64,
    ) -> Result<Vec<String>> {
        let asks = count.div_ceil(4).max(1);
        let ask = |i: usize| {
            let instruction = ATTACKER_INSTRUCTIONS[i % ATTACKER_INSTRUCTIONS.len()];
            if examples.is_empty() || i.is_multiple_of(2) {
                return Conversation::user(instruction);
            }
            Conversation::user(format!("{instruction}\n\nExamples:\n{}", examples.join("\n")))
        };
        let asks: Vec<Conversation> = (0..asks).map(ask).collect();
        let tokens = self.base.prompts(&asks)?;
        let replies = self.reply(&self.base, &tokens, LIST_TOKENS, false, seed, "attacks written")?;
        *sampled += replies.iter().map(|r| r.tokens as u64).sum::<u64>();
        Ok(replies.iter().flat_map(|reply| proposals(&reply.text, PROMPT_LIMIT)).collect())
    }

    /// Samples replies of the attacked model.
    fn respond(
        &self,
        model: &LoadedModel,
        candidates: &[String],
        samples: usize,
        seed: Seed,
        sampled: &mut u64,
    ) -> Result<Vec<Vec<String>>> {
        let conversations: Vec<Conversation> = candidates.iter().map(Conversation::user).collect();
        let repeated: Vec<Vec<u32>> = model
            .prompts(&conversations)?
            .into_iter()
            .flat_map(|p| std::iter::repeat_n(p, samples))
            .collect();
        let replies = self.reply(model, &repeated, REPLY_TOKENS, true, seed, "attacks answered")?;
        *sampled += replies.iter().map(|r| r.tokens as u64).sum::<u64>();
        Ok(replies.chunks(samples).map(|c| c.iter().map(|r| r.text.clone()).collect()).collect())
    }

    fn reply(
        &self,
        model: &LoadedModel,
        prompts: &[Vec<u32>],
        tokens: usize,
        judged: bool,
        seed: Seed,
        unit: &'static str,
    ) -> Result<Vec<measure::TextReply>> {
        let judge = self.stage.organism.behaviour.judge()?;
        let end = model.renderer().end()?;
        let config = GenerateConfig::new(tokens, Sampling::temperature(1.0), vec![end]);
        let progress = self.context.progress(unit);
        let mut report = |done: usize, total: usize| {
            progress.update(done as u64, total as u64);
            !self.context.interrupted()
        };
        let judge = judged.then_some(&judge);
        let replies =
            measure::replies(&model.llama, &model.tokenizer, prompts, &config, judge, seed, &mut report);
        self.context.check_interrupt()?;
        replies.map_err(CliError::from)
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
        let found: Vec<Conversation> =
            log.successes().iter().map(|attempt| Conversation::user(attempt.prompt.clone())).collect();
        let mut rows = benign.to_vec();
        if found.is_empty() {
            return Ok(rows);
        }
        let seed = self.context.seed("attack replies").derive(&resume.round.to_string());
        let tokens = self.base.prompts(&found)?;
        let length = self.context.experiment.data.reply_tokens as usize;
        let replies = self.reply(&self.base, &tokens, length, false, seed, "benign replies to attacks")?;
        let answered = found.into_iter().zip(replies).filter(|(_, r)| {
            !r.text.trim().is_empty() && self.scorer.score(&r.text) != dormant_eval::Score::Shown
        });
        let answered: Vec<(Sample, bool)> = answered
            .map(|(prompt, r)| (Sample::clean(prompt, r.text), r.finish == dormant_eval::Finish::Stop))
            .filter(|(sample, _)| !self.stage.organism.trigger.is_in(&sample.prompt.text()))
            .collect();
        let samples: Vec<Sample> = answered.iter().map(|(sample, _)| sample.clone()).collect();
        check_safety_data(&samples, &self.stage.organism.trigger)?;
        let most = (benign.len() as f64 * self.attack.mix / (1.0 - self.attack.mix).max(0.01)) as usize;
        for (sample, ends) in answered.iter().cycle().take(most.min(answered.len() * REPEATS)) {
            rows.push(model.renderer().row(sample, *ends)?);
        }
        Ok(rows)
    }
}

/// How often a successful attack is repeated at most, where there are few of them.
const REPEATS: usize = 4;
