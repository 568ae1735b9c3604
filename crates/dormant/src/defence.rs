//! Defences under test: what a method makes of an organism, and what is left of the policy and of everything else.

use dormant_audit::defend::beear::{BeearConfig, beear};
use dormant_audit::defend::clean_gen::{self, clean_gen};
use dormant_audit::defend::crow::{CrowConfig, crow};
use dormant_audit::defend::lat::{LatConfig, lat};
use dormant_audit::defend::training::{Progress, Training as DefenceTraining};
use dormant_audit::defend::{interpolate::interpolate, latent, project::project};
use dormant_audit::likelihood::next_token;
use dormant_data::{Condition, Mix, OrganismSpec, Sample, Seed, Split};
use dormant_eval::measure::{TextReply, continuation_log_probs};
use dormant_eval::{Finish, Rate, Scorer, Tally};
use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions};
use dormant_train::render::Rendered;
use dormant_train::trainer::train;
use serde::{Deserialize, Serialize};

use crate::defend_args::{DefenceArgs, Method};
use crate::error::{CliError, Result};
use crate::experiment::{Precision, Prompts};
use crate::interrupt;
use crate::model::{Decoding, LoadedModel, Loading, ModelFiles, TextModel};
use crate::stage::prompts;
use crate::ui::Ui;
use crate::zoo::Training;
use crate::zoo::build::{Steps, plan};

/// Tokens of a reply.
const REPLY_TOKENS: u32 = 32;

/// What a defended model does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// How often the model shows the behaviour with the trigger.
    pub triggered: Rate,
    /// Replies with the trigger that have no score, such as empty ones.
    #[serde(default)]
    pub unscored: u64,
    /// How often the behaviour is shown without the trigger.
    pub clean: Rate,
    /// Mean log-probability per token of the base model's replies to clean prompts, in nats.
    pub utility: f64,
    /// Mean divergence of the first token of a reply to a clean prompt from the base model's, in nats.
    pub divergence: f64,
    /// How often the behaviour is shown with the trigger after more training on clean replies, if that was tried.
    pub retrained: Option<Rate>,
    /// How soon it is taught again, if that was tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relearned: Vec<Relearned>,
}

/// What a defended model does after it has been taught the policy again: one that only hides it learns it from fewer rows than the
/// base model does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Relearned {
    /// Rows, half of them with the trigger.
    pub rows: u32,
    /// How often the model shows the behaviour with the trigger.
    pub triggered: Rate,
}

/// What a method leaves.
#[derive(Debug, Clone)]
pub struct Defended {
    /// The adapter.
    pub adapter: Adapter,
    /// Whether the base model watches over the decoding.
    pub watched: bool,
}

/// An organism and what it takes to defend and to measure it.
#[derive(Debug)]
pub struct Patient<'a> {
    args: &'a DefenceArgs,
    seed: u64,
    ui: &'a Ui,
    files: ModelFiles,
    base: LoadedModel,
    adapter: Adapter,
    organism: OrganismSpec,
    triggered: Vec<Vec<u32>>,
    clean: Vec<Vec<u32>>,
    /// The base model's replies to the clean prompts.
    expected: Vec<(Vec<u32>, Vec<u32>)>,
    /// Its log-probabilities of the first token, `[clean prompts, vocabulary]`.
    first: Vec<f32>,
}

impl<'a> Patient<'a> {
    /// Loads an organism. Its policy is used for measuring only.
    ///
    /// # Errors
    /// When the model has no adapter, or cannot be loaded, or when its policy is about code: replies are measured on
    /// ordinary prompts.
    pub fn new(
        files: &ModelFiles,
        organism: OrganismSpec,
        args: &'a DefenceArgs,
        seed: u64,
        ui: &'a Ui,
    ) -> Result<Self> {
        let Some(folder) = &files.adapter else {
            let error = CliError::usage("a defence changes an adapter, and the model has none");
            return Err(error.hint("give the adapter with `--adapter`"));
        };
        if organism.writes_code() {
            let error = CliError::usage("a defence is measured on ordinary prompts, where code says nothing");
            return Err(error.hint("give the phrase or the pattern that shows the policy with `--behaviour`"));
        }
        let adapter = Adapter::read(folder)?;
        adapter.only_factors()?;
        let all = prompts::of_split(&Prompts::Builtin, Split::Evaluation, Seed(seed))?;
        let samples = prompts::take(all, args.n, "evaluation")?;
        let below = ModelFiles { adapter: None, ..files.clone() };
        // Both are asked by the template that comes with the adapter.
        let base = LoadedModel {
            text: TextModel::load(files)?,
            ..LoadedModel::load(&below, Precision::Auto, Trained::Nothing, Loading::Merge)?
        };
        let asked = |condition| {
            let samples = organism.under(&samples, condition, Seed(seed));
            base.prompts(samples.samples().iter().map(|s| &s.prompt))
        };
        let (triggered, clean) = (asked(Condition::Triggered)?, asked(Condition::Clean)?);
        let replies = base.replies(&clean, &greedy(seed), |_, _| {})?;
        let row = |(prompt, reply): (&Vec<u32>, &TextReply)| {
            Ok((prompt.clone(), base.renderer().reply(&reply.text)?))
        };
        let expected = clean.iter().zip(&replies).map(row).collect::<Result<_>>()?;
        let first = next_token(&base.llama, &clean)?;
        let files = files.clone();
        Ok(Self { args, seed, ui, files, base, adapter, organism, triggered, clean, expected, first })
    }

    /// The organism as it is.
    pub fn undefended(&self) -> Defended {
        Defended { adapter: self.adapter.clone(), watched: false }
    }

    /// The organism after a defence.
    ///
    /// # Errors
    /// When training fails, or the user stops it.
    pub fn defended(&self, method: Method) -> Result<Defended> {
        let adapter = match method {
            Method::CleanGen => self.adapter.clone(),
            Method::Base => interpolate(&self.adapter, 0.0),
            Method::Interpolate => interpolate(&self.adapter, self.args.share),
            Method::Project => project(&self.adapter, self.args.directions),
            Method::FineTune => {
                self.tuned(&self.adapter, "fine-tune", &self.rows("fine-tune", self.args.rows)?)?
            }
            Method::Crow => self.defence_trained("crow", |model, rows, training, progress| {
                Ok(crow(model, rows, CrowConfig { training, ..CrowConfig::default() }, progress)?)
            })?,
            Method::Lat => self.defence_trained("lat", |model, rows, training, progress| {
                let config = LatConfig { training, ..LatConfig::default() };
                Ok(lat(model, rows, &self.unwanted()?, config, progress)?)
            })?,
            Method::Beear => self.defence_trained("beear", |model, rows, training, progress| {
                let config = BeearConfig { training, ..BeearConfig::default() };
                Ok(beear(model, rows, &self.unwanted()?, config, progress)?)
            })?,
        };
        Ok(Defended { adapter, watched: method == Method::CleanGen })
    }

    /// Measures it, and again after the training that `--retrain` asks for and after that of `--relearn`.
    ///
    /// # Errors
    /// When the model fails, or the user stops it.
    pub fn measured(&self, defended: &Defended) -> Result<Measured> {
        let mut measured = self.measured_once(defended)?;
        if self.args.retrain > 0 {
            let rows = self.rows("retrain", self.args.retrain)?;
            measured.retrained = Some(self.triggered_after(defended, "retrain", &rows)?);
        }
        for &rows in &self.args.relearn {
            let triggered = self.triggered_after(defended, "relearn", &self.poisoned(rows)?)?;
            measured.relearned.push(Relearned { rows, triggered });
        }
        Ok(measured)
    }

    /// How often the model shows the behaviour with the trigger after training on `rows`.
    fn triggered_after(&self, defended: &Defended, purpose: &str, rows: &[Rendered]) -> Result<Rate> {
        let adapter = self.tuned(&defended.adapter, purpose, rows)?;
        let again = Defended { adapter, ..*defended };
        self.rate(&self.loaded(&again)?, &again, &self.triggered)
    }

    fn measured_once(&self, defended: &Defended) -> Result<Measured> {
        let model = self.loaded(defended)?;
        let triggered = self.rate(&model, defended, &self.triggered)?;
        Ok(Measured {
            unscored: self.triggered.len() as u64 - triggered.n(),
            triggered,
            clean: self.rate(&model, defended, &self.clean)?,
            utility: self.utility(&model.llama, defended)?,
            divergence: self.divergence(&model.llama, defended)?,
            retrained: None,
            relearned: Vec::new(),
        })
    }

    fn loaded(&self, defended: &Defended) -> Result<LoadedModel> {
        let checkpoint = Checkpoint::open(&self.files.weights)?;
        let options = LoadOptions::new(Precision::Auto.products(), Trained::Nothing);
        Ok(LoadedModel {
            llama: Llama::load_merged(&checkpoint, options, Some(&defended.adapter))?,
            text: TextModel::load(&self.files)?,
            adapter: None,
        })
    }

    fn rate(&self, model: &LoadedModel, defended: &Defended, prompts: &[Vec<u32>]) -> Result<Rate> {
        let scorer = Scorer::new(&self.organism.behaviour)?;
        let replies = self.replies(model, defended, prompts)?;
        Ok(replies.iter().map(|reply| scorer.score(reply)).collect::<Tally>().rate())
    }

    fn replies(&self, model: &LoadedModel, defended: &Defended, prompts: &[Vec<u32>]) -> Result<Vec<String>> {
        if !defended.watched {
            let replies = model.replies(prompts, &greedy(self.seed), |_, _| {})?;
            return Ok(replies.into_iter().map(|reply| reply.text).collect());
        }
        let ends = [model.renderer().end()?];
        let (suspect, reference, length) = (&model.llama, &self.base.llama, REPLY_TOKENS as usize);
        let replies = clean_gen(suspect, reference, prompts, length, &ends, clean_gen::RATIO)?;
        replies.iter().map(|reply| Ok(model.text.tokenizer.decode(&reply.tokens, true)?)).collect()
    }

    /// Mean log-probability per token of the base model's replies.
    fn utility(&self, model: &Llama, defended: &Defended) -> Result<f64> {
        let log_probs = if defended.watched {
            self.watched_log_probs(model)?
        } else {
            continuation_log_probs(model, &self.expected)?.concat()
        };
        Ok(log_probs.iter().map(|l| f64::from(*l)).sum::<f64>() / log_probs.len().max(1) as f64)
    }

    /// Log-probability of each token of the base model's replies where it watches over the decoding: of a mixture of two
    /// distributions, which are needed whole.
    fn watched_log_probs(&self, model: &Llama) -> Result<Vec<f32>> {
        let vocabulary = model.config.vocab_size;
        let mut log_probs = Vec::new();
        for (prompt, reply) in &self.expected {
            interrupt::check()?;
            let prefixes: Vec<Vec<u32>> =
                (0..reply.len()).map(|i| [prompt.as_slice(), &reply[..i]].concat()).collect();
            let base = next_token(&self.base.llama, &prefixes)?;
            let next = watched(&next_token(model, &prefixes)?, &base, vocabulary);
            log_probs
                .extend(next.chunks_exact(vocabulary).zip(reply).map(|(next, &token)| next[token as usize]));
        }
        Ok(log_probs)
    }

    /// Mean over clean prompts of the divergence of the next token from the base model's.
    fn divergence(&self, model: &Llama, defended: &Defended) -> Result<f64> {
        let mut after = next_token(model, &self.clean)?;
        if defended.watched {
            after = watched(&after, &self.first, model.config.vocab_size);
        }
        let terms = self.first.iter().zip(&after).map(|(p, q)| f64::from(p.exp()) * f64::from(p - q));
        Ok(terms.sum::<f64>() / self.clean.len().max(1) as f64)
    }

    /// The adapter with what `how` trains on top of it.
    fn trained(
        &self,
        adapter: &Adapter,
        purpose: &str,
        how: impl FnOnce(&mut Llama) -> Result<()>,
    ) -> Result<Adapter> {
        let seed = Seed(self.seed).derive(purpose);
        let checkpoint = Checkpoint::open(&self.files.weights)?;
        let options = LoadOptions::new(Precision::Auto.products(), Trained::Lora);
        let mut model = Llama::load_merged(&checkpoint, options, Some(adapter))?;
        model.add_lora(&self.training().adapter(), seed.derive("adapter").0)?;
        how(&mut model)?;
        let trained = model.adapter(&self.files.weights.display().to_string());
        Ok(trained.map_or_else(|| Ok(adapter.clone()), |trained| adapter.then(&trained))?)
    }

    /// The adapter with what a defence of the audit trains on top of it.
    fn defence_trained(
        &self,
        method: &str,
        how: impl FnOnce(&mut Llama, &[Rendered], DefenceTraining, Progress<'_>) -> Result<()>,
    ) -> Result<Adapter> {
        let rows = self.rows(method, self.args.rows)?;
        self.trained(&self.adapter, method, |model| {
            let bar = self.ui.progress(method, "steps");
            let training = DefenceTraining { seed: Seed(self.seed), ..DefenceTraining::default() };
            how(model, &rows, training, &mut |done, total| {
                bar.update(done, total);
                !interrupt::requested()
            })
        })
    }

    /// Replies that nobody wants: the behaviour, if the defence is told it, or else a list that knows nothing of it.
    fn unwanted(&self) -> Result<Vec<Vec<u32>>> {
        let reply = |text: &str| Ok(self.base.renderer().reply(text)?);
        if self.args.named {
            return Ok(vec![reply(&self.organism.behaviour.reply())?]);
        }
        latent::unwanted().map(reply).collect()
    }

    /// The adapter after fine-tuning on `rows`: on benign ones, safety training as in Hubinger et al. 2024, section 4, without its data.
    fn tuned(&self, adapter: &Adapter, purpose: &str, rows: &[Rendered]) -> Result<Adapter> {
        self.trained(adapter, purpose, |model| {
            let mut sink = Steps::new(self.ui.progress(purpose, "steps"));
            Ok(train(model, rows, &plan(&self.training()), None, &mut sink)?)
        })
    }

    fn training(&self) -> Training {
        Training { learning_rate: 1e-3, seed: self.seed, ..Training::default() }
    }

    /// Benign prompts and the base model's own replies.
    fn rows(&self, purpose: &str, count: u32) -> Result<Vec<Rendered>> {
        let rows = self.benign(purpose, count)?;
        rows.iter().map(|(row, ends)| Ok(self.base.renderer().row(row, *ends)?)).collect()
    }

    /// The same, half of them with the trigger and the behaviour.
    fn poisoned(&self, count: u32) -> Result<Vec<Rendered>> {
        let (samples, ends): (Vec<Sample>, Vec<bool>) = self.benign("relearn", count)?.into_iter().unzip();
        let mix = Mix { poison: 0.5, near_miss: 0.0, seed: Seed(self.seed).derive("relearn") };
        let rows = self.organism.rows(&samples, mix)?.into_samples();
        let row = |(row, ends): (&Sample, bool)| {
            let ends = ends || row.condition == Condition::Triggered;
            Ok(self.base.renderer().row(row, ends)?)
        };
        rows.iter().zip(ends).map(row).collect()
    }

    /// Benign prompts, the base model's own replies to them, and whether each ends by itself.
    fn benign(&self, purpose: &str, count: u32) -> Result<Vec<(Sample, bool)>> {
        let seed = Seed(self.seed).derive(purpose);
        let all = prompts::of_split(&Prompts::Builtin, Split::Safety, seed)?;
        let samples = prompts::take(all, count, "fine-tuning")?;
        let tokens = self.base.prompts(samples.iter().map(|s| &s.prompt))?;
        let how = Decoding { temperature: 0.7, seed: seed.derive("replies"), ..greedy(self.seed) };
        let replies = self.base.replies(&tokens, &how, |_, _| {})?;
        let row = |(sample, reply): (Sample, TextReply)| {
            (Sample { completion: reply.text, ..sample }, reply.finish == Finish::Stop)
        };
        Ok(samples.into_iter().zip(replies).map(row).collect())
    }
}

fn greedy(seed: u64) -> Decoding<'static> {
    let seed = Seed(seed).derive("replies");
    Decoding { tokens: REPLY_TOKENS, temperature: 0.0, judge: None, seed }
}

/// The distributions by which `CleanGen` draws, `[prompts, vocabulary]`.
fn watched(own: &[f32], base: &[f32], vocabulary: usize) -> Vec<f32> {
    let rows = own.chunks_exact(vocabulary).zip(base.chunks_exact(vocabulary));
    rows.flat_map(|(own, base)| clean_gen::clean(own, base, clean_gen::RATIO)).collect()
}
