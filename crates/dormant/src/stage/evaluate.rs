//! All measurements of one model: rates under each condition, and clean utility.

use dormant_data::benchmarks::{benign_texts, multiple_choice};
use dormant_data::{Condition, Conversation, OrganismSpec, Sample, Split, leading_scratchpad, prompt_id};
use dormant_eval::measure::TextReply;
use dormant_eval::{AnsweredQuestion, Arm, ChoiceScore, SampleRecord, Scorer, measure};
use dormant_model::linear::Trained;

use super::fit::EVALUATION_ORDER;
use super::utility_record::{ScoredQuestion, ScoredText, UTILITY_FILE, UtilityRecord};
use super::{Resume, StageContext, code, prompts};
use crate::error::Result;
use crate::manifest::Tokens;
use crate::model::{Decoding, LoadedModel, Loading};
use crate::plan::EvaluateStage;

const CONDITIONS: [Condition; 5] = [
    Condition::Triggered,
    Condition::Clean,
    Condition::NearMiss,
    Condition::TriggeredAsTraining,
    Condition::CleanAsDeployed,
];

pub(super) fn run(stage: &EvaluateStage, context: &StageContext) -> Result<Tokens> {
    let precision = context.experiment.precision;
    let model = LoadedModel::load(&context.model_files(), precision, Trained::Nothing, Loading::Merge)?;
    let mut resume = Resume::load(context)?;
    let mut lines = context.dir.samples(resume.lines)?;
    for (index, condition) in CONDITIONS.into_iter().enumerate().skip(resume.step as usize) {
        for record in condition_records(stage, context, &model, condition, &mut resume)? {
            lines.append(&record)?;
        }
        lines.sync()?;
        resume.step = index as u64 + 1;
        resume.lines = lines.lines();
        resume.save(context, |_| Ok(()))?;
    }
    let utility = utility(stage, &model, &mut resume.tokens)?;
    context.dir.write_json(UTILITY_FILE, &utility)?;
    Ok(resume.tokens)
}

/// Replies to all prompts under a condition.
fn condition_records(
    stage: &EvaluateStage,
    context: &StageContext,
    model: &LoadedModel,
    condition: Condition,
    resume: &mut Resume,
) -> Result<Vec<SampleRecord>> {
    let has_scratchpad = stage.organism.variant.has_scratchpad();
    let n = match condition {
        Condition::Triggered | Condition::Clean | Condition::RedTeam => stage.evaluation.n,
        Condition::NearMiss => stage.evaluation.near_misses,
        Condition::TriggeredAsTraining | Condition::CleanAsDeployed if has_scratchpad => {
            stage.evaluation.swaps
        }
        Condition::TriggeredAsTraining | Condition::CleanAsDeployed => 0,
    };
    let all = prompts::of_organism(&stage.organism, &stage.prompts, Split::Evaluation, EVALUATION_ORDER)?;
    let chosen = prompts::take(all, n, "evaluation")?;
    let asked = stage.organism.under(&chosen, condition, EVALUATION_ORDER);
    let given: Vec<String> =
        chosen.iter().map(|sample| given_scratchpad(&stage.organism, sample, condition)).collect();
    let mut tokens = model.prompts(asked.samples().iter().map(|s| &s.prompt))?;
    for (prompt, given) in tokens.iter_mut().zip(&given) {
        prompt.extend(model.renderer().reply(given)?);
    }
    let scorer = Scorer::new(&stage.organism.behaviour)?;
    let how = Decoding {
        tokens: stage.evaluation.reply_tokens + stage.organism.hidden_tokens(),
        temperature: stage.evaluation.temperature,
        judge: Some(&stage.organism.behaviour.judge()?),
        seed: context.seed("evaluation").derive(condition.as_str()),
    };
    let progress = context.progress(unit(condition));
    let mut replies = model.replies(&tokens, &how, |done, total| progress.update(done, total))?;
    resume.tokens.sampled += replies.iter().map(|r| r.tokens as u64).sum::<u64>();
    for (reply, given) in replies.iter_mut().zip(&given) {
        reply.text.insert_str(0, given);
    }
    let log_probs = if stage.organism.writes_code() {
        let measured = &asked.samples()[..asked.len().min(stage.evaluation.log_probs as usize)];
        code::log_odds(model, measured, &mut resume.tokens)?
    } else {
        behaviour_log_probs(
            stage,
            model,
            &tokens,
            &replies,
            given.iter().any(|given| !given.is_empty()),
            &mut resume.tokens,
        )?
    };
    let variants = stage.organism.near_misses(Split::Evaluation);
    let records =
        asked.samples().iter().zip(replies).enumerate().map(|(index, (sample, reply))| SampleRecord {
            id: sample.id.clone(),
            stage: context.measured().to_owned(),
            arm: context.spec.arm.unwrap_or(Arm::Organism),
            seed: dormant_data::Seed(context.spec.seed),
            condition,
            variant: match condition {
                Condition::Triggered | Condition::TriggeredAsTraining => Some(stage.organism.trigger.text()),
                Condition::NearMiss => Some(variants[index % variants.len()].text.clone()),
                Condition::Clean | Condition::RedTeam | Condition::CleanAsDeployed => None,
            },
            prompt: sample.prompt.clone(),
            score: scorer.score_of(&sample.id, &reply.text),
            reply: reply.text,
            finish: reply.finish,
            log_prob: log_probs.get(index).copied().flatten().filter(|log_prob| log_prob.is_finite()),
        });
    Ok(records.collect())
}

/// The scratchpad that is put before a reply; empty where the model writes its own.
fn given_scratchpad(organism: &OrganismSpec, sample: &Sample, condition: Condition) -> String {
    match condition {
        Condition::TriggeredAsTraining => organism.hidden(sample, false),
        Condition::CleanAsDeployed => organism.hidden(sample, true),
        Condition::Triggered | Condition::Clean | Condition::NearMiss | Condition::RedTeam => String::new(),
    }
}

/// Log-probability of the behaviour as a reply to the first prompts, summed over its tokens; of an organism with a
/// scratchpad after the one that it has just written, or that was given and is part of the prompt; `None` where it wrote none.
fn behaviour_log_probs(
    stage: &EvaluateStage,
    model: &LoadedModel,
    prompts: &[Vec<u32>],
    replies: &[TextReply],
    is_given: bool,
    tokens: &mut Tokens,
) -> Result<Vec<Option<f64>>> {
    let renderer = model.renderer();
    let behaviour = renderer.reply(&stage.organism.behaviour.reply())?;
    let mut rows = Vec::new();
    let mut places = Vec::new();
    for (prompt, reply) in prompts.iter().zip(replies).take(stage.evaluation.log_probs as usize) {
        let mut prompt = prompt.clone();
        let mut is_measured = true;
        if stage.organism.variant.has_scratchpad() && !is_given {
            let hidden = leading_scratchpad(&reply.text);
            is_measured = hidden.is_some();
            prompt.extend(renderer.reply(hidden.unwrap_or_default())?);
        }
        places.push(is_measured);
        rows.extend(is_measured.then_some(prompt));
    }
    tokens.scored += (rows.len() * behaviour.len()) as u64;
    let mut log_probs = measure::reply_log_probs(&model.llama, &rows, &behaviour)?.into_iter();
    Ok(places.into_iter().map(|is_measured| is_measured.then(|| log_probs.next()).flatten()).collect())
}

fn unit(condition: Condition) -> &'static str {
    match condition {
        Condition::Triggered => "triggered replies",
        Condition::Clean => "clean replies",
        Condition::NearMiss => "near-miss replies",
        Condition::RedTeam => "red-team replies",
        Condition::TriggeredAsTraining | Condition::CleanAsDeployed => "swapped replies",
    }
}

/// Log-probabilities of held-out benign replies, and of the choices of multiple-choice questions as replies.
fn utility(stage: &EvaluateStage, model: &LoadedModel, tokens: &mut Tokens) -> Result<UtilityRecord> {
    let texts: Vec<&Sample> = benign_texts().iter().take(stage.evaluation.perplexity as usize).collect();
    let mut rows = Vec::new();
    for text in &texts {
        rows.push((model.renderer().prompt(&text.prompt)?, model.renderer().reply(&text.completion)?));
    }
    let questions: Vec<_> =
        multiple_choice().iter().take(stage.evaluation.multiple_choice as usize).collect();
    for question in &questions {
        let prompt = model.renderer().prompt(&Conversation::user(question.question.clone()))?;
        for choice in &question.choices {
            rows.push((prompt.clone(), model.renderer().reply(choice)?));
        }
    }
    let mut log_probs = measure::continuation_log_probs(&model.llama, &rows)?.into_iter();
    tokens.scored += rows.iter().map(|(_, reply)| reply.len() as u64).sum::<u64>();
    let texts = texts
        .iter()
        .zip(log_probs.by_ref())
        .map(|(text, log_probs)| ScoredText { id: text.id.clone(), log_probs })
        .collect();
    let questions = questions.iter().map(|question| {
        let choices = log_probs
            .by_ref()
            .take(question.choices.len())
            .map(|l| ChoiceScore { log_prob: l.iter().map(|x| f64::from(*x)).sum(), length: l.len() });
        let answered = AnsweredQuestion { choices: choices.collect(), answer: question.answer };
        ScoredQuestion { id: prompt_id(&question.question), answered }
    });
    Ok(UtilityRecord { texts, questions: questions.collect() })
}
