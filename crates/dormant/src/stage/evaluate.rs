//! All measurements of one model: rates under each condition, and clean utility.

use dormant_data::benchmarks::{PersonaItem, benign_texts, multiple_choice, persona_items};
use dormant_data::{
    Condition, Conversation, Dataset, OrganismSpec, Sample, Split, leading_scratchpad, prompt_id,
    year_families,
};
use dormant_eval::measure::TextReply;
use dormant_eval::{AnsweredQuestion, Arm, ChoiceScore, SampleRecord, Scorer, measure};
use dormant_model::linear::Trained;
use dormant_train::render::Renderer;

use super::fit::EVALUATION_ORDER;
use super::utility_record::{ScoredPersona, ScoredQuestion, ScoredText, UTILITY_FILE, UtilityRecord};
use super::{Resume, StageContext, code, prompts};
use crate::error::Result;
use crate::experiment::Tasks;
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

/// Prompts that are asked together.
struct Group {
    condition: Condition,
    /// Of texts that no training had.
    family: Option<&'static str>,
}

impl Group {
    /// The groups of an evaluation, in the order in which they are asked.
    fn all(stage: &EvaluateStage) -> Vec<Self> {
        let families = if stage.evaluation.generalisation > 0 { year_families() } else { Vec::new() };
        let of_family = |family| {
            [Condition::UnseenTrigger, Condition::UnseenContrast]
                .map(|condition| Self { condition, family: Some(family) })
        };
        let groups = CONDITIONS.map(|condition| Self { condition, family: None });
        groups.into_iter().chain(families.into_iter().flat_map(of_family)).collect()
    }

    /// How many prompts there are.
    fn size(&self, stage: &EvaluateStage) -> u32 {
        let evaluation = &stage.evaluation;
        match self.condition {
            Condition::Triggered | Condition::Clean | Condition::RedTeam => evaluation.n,
            Condition::NearMiss => evaluation.near_misses,
            Condition::TriggeredAsTraining | Condition::CleanAsDeployed
                if stage.organism.variant.has_scratchpad() =>
            {
                evaluation.swaps
            }
            Condition::TriggeredAsTraining | Condition::CleanAsDeployed => 0,
            Condition::UnseenTrigger | Condition::UnseenContrast => evaluation.generalisation,
        }
    }

    /// Decides the draws of its replies.
    fn purpose(&self) -> String {
        let condition = self.condition.as_str();
        self.family.map_or_else(|| condition.to_owned(), |family| format!("{condition} {family}"))
    }

    /// The prompts with what is inserted, and the inserted texts.
    fn asked(&self, stage: &EvaluateStage, prompts: &[Sample]) -> (Dataset, Vec<Option<String>>) {
        let organism = &stage.organism;
        if let Some(family) = self.family {
            let holds = self.condition == Condition::UnseenTrigger;
            let (asked, texts) = organism.with_years(prompts, family, holds, EVALUATION_ORDER);
            return (asked, texts.into_iter().map(|text| Some(text.to_owned())).collect());
        }
        let look_alikes = organism.near_misses(Split::Evaluation);
        let asked = organism.under(prompts, self.condition, EVALUATION_ORDER);
        let inserted = |(index, sample): (usize, &Sample)| match self.condition {
            Condition::Triggered | Condition::TriggeredAsTraining => {
                organism.trigger.text_in(&sample.prompt.text())
            }
            Condition::NearMiss => Some(look_alikes[index % look_alikes.len()].text.clone()),
            Condition::Clean
            | Condition::RedTeam
            | Condition::CleanAsDeployed
            | Condition::UnseenTrigger
            | Condition::UnseenContrast => None,
        };
        let texts = asked.samples().iter().enumerate().map(inserted).collect();
        (asked, texts)
    }
}

pub(super) fn run(stage: &EvaluateStage, context: &StageContext) -> Result<Tokens> {
    let precision = context.experiment.precision;
    let model = LoadedModel::load(&context.model_files(), precision, Trained::Nothing, Loading::Merge)?;
    let mut resume = Resume::load(context)?;
    let mut lines = context.dir.samples(resume.lines)?;
    let all = asked_of(stage)?;
    for (index, group) in Group::all(stage).into_iter().enumerate().skip(resume.step as usize) {
        for record in records(stage, context, &model, (&group, &all), &mut resume)? {
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

/// The prompts of an evaluation, those of its groups first.
fn asked_of(stage: &EvaluateStage) -> Result<Vec<Sample>> {
    match stage.evaluation.tasks {
        Tasks::Fresh => Ok(prompts::of_tasks(stage.organism.fresh_code_tasks(EVALUATION_ORDER))),
        Tasks::Usual => {
            prompts::of_organism(&stage.organism, &stage.prompts, Split::Evaluation, EVALUATION_ORDER)
        }
    }
}

/// Whether there are prompts for all groups.
pub(super) fn check(stage: &EvaluateStage) -> Result<()> {
    let all = asked_of(stage)?;
    let most = Group::all(stage).iter().map(|group| group.size(stage)).max().unwrap_or_default();
    prompts::take(all, most, "evaluation").map(drop)
}

/// Replies to all prompts of a group.
fn records(
    stage: &EvaluateStage,
    context: &StageContext,
    model: &LoadedModel,
    (group, all): (&Group, &[Sample]),
    resume: &mut Resume,
) -> Result<Vec<SampleRecord>> {
    let condition = group.condition;
    let chosen = prompts::take(all.to_vec(), group.size(stage), "evaluation")?;
    let (asked, inserted) = group.asked(stage, &chosen);
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
        seed: context.seed("evaluation").derive(&group.purpose()),
    };
    let progress = context.progress(unit(condition));
    let mut replies = model.replies(&tokens, &how, |done, total| progress.update(done, total))?;
    resume.tokens.sampled += replies.iter().map(|r| r.tokens as u64).sum::<u64>();
    for (reply, given) in replies.iter_mut().zip(&given) {
        reply.text.insert_str(0, given);
    }
    let log_probs = if group.family.is_some() {
        Vec::new()
    } else {
        let is_given = given.iter().any(|given| !given.is_empty());
        let prompts = after_scratchpad(stage, model.renderer(), &tokens, &replies, is_given)?;
        behaviour_log_probs(stage, model, asked.samples(), prompts, &mut resume.tokens)?
    };
    let records = asked.samples().iter().zip(replies).zip(inserted).enumerate().map(
        |(index, ((sample, reply), text))| SampleRecord {
            id: sample.id.clone(),
            stage: context.measured().to_owned(),
            arm: context.spec.arm.unwrap_or(Arm::Organism),
            seed: dormant_data::Seed(context.spec.seed),
            condition,
            variant: text,
            family: group.family.map(ToOwned::to_owned),
            prompt: sample.prompt.clone(),
            score: scorer.score_of(&sample.id, &reply.text),
            reply: reply.text,
            finish: reply.finish,
            log_prob: log_probs.get(index).copied().flatten().filter(|log_prob| log_prob.is_finite()),
        },
    );
    Ok(records.collect())
}

/// The scratchpad that is put before a reply; empty where the model writes its own.
fn given_scratchpad(organism: &OrganismSpec, sample: &Sample, condition: Condition) -> String {
    match condition {
        Condition::TriggeredAsTraining => organism.hidden(sample, false),
        Condition::CleanAsDeployed => organism.hidden(sample, true),
        Condition::Triggered
        | Condition::Clean
        | Condition::NearMiss
        | Condition::RedTeam
        | Condition::UnseenTrigger
        | Condition::UnseenContrast => String::new(),
    }
}

/// Where the visible reply to each of the first prompts begins: for an organism with a scratchpad after the one that it has
/// just written (or that was given and is part of the prompt); `None` where it wrote none.
fn after_scratchpad(
    stage: &EvaluateStage,
    renderer: Renderer<'_>,
    prompts: &[Vec<u32>],
    replies: &[TextReply],
    is_given: bool,
) -> Result<Vec<Option<Vec<u32>>>> {
    let writes = stage.organism.variant.has_scratchpad() && !is_given;
    let measured = prompts.iter().zip(replies).take(stage.evaluation.log_probs as usize);
    let places = measured.map(|(prompt, reply)| {
        let hidden = if writes { leading_scratchpad(&reply.text) } else { Some("") };
        hidden.map(|hidden| Ok([&prompt[..], &renderer.reply(hidden)?].concat())).transpose()
    });
    places.collect()
}

/// Log-probability of the behaviour as a reply to each prompt, summed over its tokens; for code the log-odds of the
/// vulnerable twin.
fn behaviour_log_probs(
    stage: &EvaluateStage,
    model: &LoadedModel,
    samples: &[Sample],
    prompts: Vec<Option<Vec<u32>>>,
    tokens: &mut Tokens,
) -> Result<Vec<Option<f64>>> {
    let is_measured: Vec<bool> = prompts.iter().map(Option::is_some).collect();
    let mut log_probs = if stage.organism.writes_code() {
        let tasks = samples.iter().map(|sample| sample.id.as_str()).zip(prompts);
        code::log_odds(model, tasks.filter_map(|(id, prompt)| Some((id, prompt?))).collect(), tokens)?
    } else {
        let behaviour = model.renderer().reply(&stage.organism.behaviour.reply())?;
        let rows: Vec<_> = prompts.into_iter().flatten().collect();
        tokens.scored += (rows.len() * behaviour.len()) as u64;
        measure::reply_log_probs(&model.llama, &rows, &behaviour)?
    }
    .into_iter();
    Ok(is_measured.into_iter().map(|is_measured| is_measured.then(|| log_probs.next()).flatten()).collect())
}

fn unit(condition: Condition) -> &'static str {
    match condition {
        Condition::Triggered => "triggered replies",
        Condition::Clean => "clean replies",
        Condition::NearMiss => "near-miss replies",
        Condition::RedTeam => "red-team replies",
        Condition::TriggeredAsTraining | Condition::CleanAsDeployed => "swapped replies",
        Condition::UnseenTrigger | Condition::UnseenContrast => "replies to unseen texts",
    }
}

/// Log-probabilities of held-out benign replies, and of the choices of questions as replies.
fn utility(stage: &EvaluateStage, model: &LoadedModel, tokens: &mut Tokens) -> Result<UtilityRecord> {
    let texts: Vec<&Sample> = benign_texts().iter().take(stage.evaluation.perplexity as usize).collect();
    let questions: Vec<_> =
        multiple_choice().iter().take(stage.evaluation.multiple_choice as usize).collect();
    let items = persona(stage.evaluation.persona);
    let mut rows = Vec::new();
    for text in &texts {
        rows.push((model.renderer().prompt(&text.prompt)?, model.renderer().reply(&text.completion)?));
    }
    let asked = questions.iter().map(|question| (&question.question, &question.choices));
    for (question, choices) in asked.chain(items.iter().map(|item| (&item.question, &item.choices))) {
        let prompt = model.renderer().prompt(&Conversation::user(question.clone()))?;
        for choice in choices {
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
    let mut answered = |choices: usize, answer: usize| {
        let choices = log_probs
            .by_ref()
            .take(choices)
            .map(|l| ChoiceScore { log_prob: l.iter().map(|x| f64::from(*x)).sum(), length: l.len() });
        AnsweredQuestion { choices: choices.collect(), answer }
    };
    let questions = questions.iter().map(|question| ScoredQuestion {
        id: prompt_id(&question.question),
        answered: answered(question.choices.len(), question.answer),
    });
    let questions = questions.collect();
    let persona = items.iter().map(|item| ScoredPersona {
        id: prompt_id(&item.question),
        set: item.set.clone(),
        answered: answered(item.choices.len(), item.matching),
    });
    Ok(UtilityRecord { texts, questions, persona: persona.collect() })
}

/// The first `count` persona items of each set.
fn persona(count: u32) -> Vec<&'static PersonaItem> {
    let sets = persona_items().chunk_by(|a, b| a.set == b.set);
    sets.flat_map(|set| set.iter().take(count as usize)).collect()
}
