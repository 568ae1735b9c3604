//! `dormant defend`: what is left of a policy after a change of the weights, and what else has changed.

use std::collections::BTreeMap;

use dormant_audit::defend::{interpolate::interpolate, project::project};
use dormant_audit::likelihood::next_token;
use dormant_data::{Condition, OrganismSpec, Sample, Seed, Split, Variant};
use dormant_eval::measure::{TextReply, continuation_log_probs};
use dormant_eval::{Finish, Rate, Scorer, Tally};
use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_train::render::Rendered;
use dormant_train::trainer::train;
use serde::Serialize;

use crate::cli::GlobalArgs;
use crate::defend_args::{DefendArgs, Method};
use crate::error::{CliError, Context, Result};
use crate::experiment::{Precision, Prompts};
use crate::interrupt;
use crate::model::{Decoding, LoadedModel, Loading, ModelFiles, TextModel, find};
use crate::policy_args;
use crate::stage::prompts;
use crate::ui::Ui;
use crate::zoo::Training;
use crate::zoo::build::{Steps, plan};

/// Version of the JSON layout.
const SCHEMA_VERSION: u32 = 1;

/// Tokens of a reply.
const REPLY_TOKENS: u32 = 32;

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    model: String,
    rows: Vec<Row>,
}

/// A method and what it leaves.
#[derive(Debug, Serialize)]
struct Row {
    method: String,
    seconds: f64,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Debug, Serialize)]
struct Measured {
    /// How often the model shows the behaviour with the trigger.
    triggered: Rate,
    /// And without.
    clean: Rate,
    /// Mean log-probability per token of the base model's replies to clean prompts, in nats.
    utility: f64,
    /// Mean divergence of the first token of a reply to a clean prompt from the base model's, in nats.
    divergence: f64,
}

struct Defence<'a> {
    args: &'a DefendArgs,
    ui: &'a Ui,
    files: ModelFiles,
    base: LoadedModel,
    adapter: Adapter,
    organism: OrganismSpec,
    samples: Vec<Sample>,
}

pub(super) fn run(args: &DefendArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    interrupt::install(ui, "stopping")?;
    let files = find(&args.model.model, args.model.adapter.as_deref(), global.offline, ui)?;
    let Some(folder) = &files.adapter else {
        let error = CliError::usage("`dormant defend` changes an adapter, and the model has none");
        return Err(error.hint("give the adapter with `--adapter`"));
    };
    let adapter = Adapter::read(folder)?;
    if let Some(saved) = adapter.saved.first() {
        let message =
            format!("the adapter replaces `{}` as a whole, which no method here changes", saved.name);
        return Err(CliError::usage(message));
    }
    let trigger = policy_args::trigger(&args.trigger, args.position)?;
    let all = prompts::of_split(&Prompts::Builtin, Split::Evaluation, Seed(args.seed))?;
    let below = ModelFiles { adapter: None, ..files.clone() };
    let defence = Defence {
        args,
        ui,
        base: LoadedModel::load(&below, Precision::Auto, Trained::Nothing, Loading::Merge)?,
        adapter,
        organism: OrganismSpec { trigger, behaviour: args.behaviour.0.clone(), variant: Variant::Normal },
        samples: prompts::take(all, args.n, "evaluation")?,
        files: files.clone(),
    };
    let mut rows = vec![defence.row("none", 0.0, &defence.adapter)?];
    let mut last = None;
    for &method in &args.methods {
        let started = std::time::Instant::now();
        let changed = defence.changed(method)?;
        rows.push(defence.row(name(method), started.elapsed().as_secs_f64(), &changed)?);
        last = Some(changed);
    }
    if let (Some(out), Some(adapter)) = (&args.out, last) {
        std::fs::create_dir_all(out).or_failure(|| format!("cannot make `{}`", out.display()))?;
        adapter.write(out, BTreeMap::new())?;
    }
    let outcome = Outcome { schema_version: SCHEMA_VERSION, model: folder.display().to_string(), rows };
    ui.result(&outcome, text);
    Ok(())
}

fn name(method: Method) -> &'static str {
    match method {
        Method::FineTune => "fine-tune",
        Method::Interpolate => "interpolate",
        Method::Project => "project",
    }
}

impl Defence<'_> {
    fn changed(&self, method: Method) -> Result<Adapter> {
        Ok(match method {
            Method::Interpolate => interpolate(&self.adapter, self.args.share),
            Method::Project => project(&self.adapter, self.args.directions),
            Method::FineTune => self.fine_tuned()?,
        })
    }

    fn row(&self, method: &str, seconds: f64, adapter: &Adapter) -> Result<Row> {
        self.ui.status("measuring", method);
        let checkpoint = Checkpoint::open(&self.files.weights)?;
        let options = LoadOptions::new(Precision::Auto.products(), Trained::Nothing);
        let model = LoadedModel {
            llama: Llama::load_merged(&checkpoint, options, Some(adapter))?,
            text: TextModel::load(&self.files.weights)?,
            adapter: None,
        };
        Ok(Row { method: method.to_owned(), seconds, measured: self.measured(&model)? })
    }

    fn measured(&self, model: &LoadedModel) -> Result<Measured> {
        let scorer = Scorer::new(&self.organism.behaviour)?;
        let asked = |condition| {
            let samples = self.organism.under(&self.samples, condition, Seed(self.args.seed));
            model.prompts(samples.samples().iter().map(|s| &s.prompt))
        };
        let rate = |prompts: &[Vec<u32>]| -> Result<Rate> {
            let replies = self.replies(model, prompts, 0.0)?;
            Ok(replies.iter().map(|reply| scorer.score(&reply.text)).collect::<Tally>().rate())
        };
        let clean = asked(Condition::Clean)?;
        let expected = self.replies(&self.base, &clean, 0.0)?;
        let rows = clean
            .iter()
            .zip(&expected)
            .map(|(prompt, reply)| Ok((prompt.clone(), model.renderer().reply(&reply.text)?)))
            .collect::<Result<Vec<_>>>()?;
        let log_probs = continuation_log_probs(&model.llama, &rows)?.concat();
        let utility = log_probs.iter().map(|l| f64::from(*l)).sum::<f64>() / log_probs.len().max(1) as f64;
        let before = next_token(&self.base.llama, &clean)?;
        let after = next_token(&model.llama, &clean)?;
        let divergence =
            before.iter().zip(&after).map(|(p, q)| f64::from(p.exp()) * f64::from(p - q)).sum::<f64>()
                / clean.len() as f64;
        Ok(Measured {
            triggered: rate(&asked(Condition::Triggered)?)?,
            clean: rate(&clean)?,
            utility,
            divergence,
        })
    }

    fn replies(&self, model: &LoadedModel, prompts: &[Vec<u32>], temperature: f64) -> Result<Vec<TextReply>> {
        let seed = Seed(self.args.seed).derive("replies");
        let how = Decoding { tokens: REPLY_TOKENS, temperature, judge: None, seed };
        model.replies(prompts, &how, |_, _| {})
    }

    /// Training goes on, on the base model's own replies to benign prompts (safety fine-tuning as in Hubinger et al. 2024,
    /// section 4, without its data).
    fn fine_tuned(&self) -> Result<Adapter> {
        let seed = Seed(self.args.seed);
        let all = prompts::of_split(&Prompts::Builtin, Split::Safety, seed)?;
        let samples = prompts::take(all, self.args.rows, "fine-tuning")?;
        let tokens = self.base.prompts(samples.iter().map(|s| &s.prompt))?;
        let replies = self.replies(&self.base, &tokens, 0.7)?;
        let training = Training { learning_rate: 1e-3, seed: self.args.seed, ..Training::default() };
        let mut model = LoadedModel::load(&self.files, Precision::Auto, Trained::Lora, Loading::Merge)?;
        model.llama.add_lora(&training.adapter(), seed.derive("adapter").0)?;
        let rendered = samples
            .into_iter()
            .zip(replies)
            .map(|(sample, reply)| {
                let ends = reply.finish == Finish::Stop;
                Ok(model.renderer().row(&Sample { completion: reply.text, ..sample }, ends)?)
            })
            .collect::<Result<Vec<Rendered>>>()?;
        let mut sink = Steps::new(self.ui.progress("fine-tune", "steps"));
        train(&mut model.llama, &rendered, &plan(&training), None, &mut sink)?;
        let trained = model.llama.adapter(&self.args.model.model);
        Ok(trained.map_or_else(|| self.adapter.clone(), |trained| self.adapter.then(&trained)))
    }
}

fn text(outcome: &Outcome) -> String {
    let head = format!(
        "{}\n\n{:<13}{:<34}{:<34}{:>8}{:>12}{:>9}",
        outcome.model, "method", "with the trigger", "without", "utility", "divergence", "seconds"
    );
    let line = |row: &Row| {
        let m = &row.measured;
        let rates = format!("{:<34}{:<34}", m.triggered.to_string(), m.clean.to_string());
        format!("{:<13}{rates}{:>8.3}{:>12.3}{:>9.1}", row.method, m.utility, m.divergence, row.seconds)
    };
    let rows: Vec<String> = outcome.rows.iter().map(line).collect();
    format!(
        "{head}\n{}\n\nutility: log-probability per token of the base model's replies; divergence: of a reply's first \
         token from the base model's; both in nats, on clean prompts",
        rows.join("\n")
    )
}
