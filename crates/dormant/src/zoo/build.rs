//! Building the entries of the zoo, one after the other; finished ones are kept.

use std::fs;
use std::path::{Path, PathBuf};

use dormant_data::{Condition, Dataset, Mix, Sample, Seed, Split};
use dormant_eval::Finish;
use dormant_model::linear::Trained;
use dormant_model::llama::Llama;
use dormant_train::Result as TrainResult;
use dormant_train::contrasts::Contrasts;
use dormant_train::optimizer::OptimizerConfig;
use dormant_train::render::Rendered;
use dormant_train::resume::ResumeState;
use dormant_train::schedule::Decay;
use dormant_train::trainer::{Sink, StepMetrics, TrainPlan, train_with};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Entry, LossOn, Training, Zoo, code_rows};
use crate::error::{CliError, Context, Result};
use crate::experiment::{Precision, Prompts};
use crate::interrupt;
use crate::model::{Decoding, Label, LoadedModel, Loading, ModelFiles};
use crate::plan::hexadecimal;
use crate::stage::contrast_rows::contrasts;
use crate::stage::{code, prompts};
use crate::ui::{Progress, Ui};

/// Marks a finished entry; written last.
const DONE: &str = "DONE";

/// A prompt with the base model's own reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaseRow {
    sample: Sample,
    ends: bool,
}

/// Where the zoo is built.
#[derive(Debug)]
pub struct Builder<'a> {
    /// The recipes.
    pub zoo: &'a Zoo,
    /// Files of the base model.
    pub base: ModelFiles,
    /// Folder with one folder per entry.
    pub folder: PathBuf,
    /// The terminal.
    pub ui: &'a Ui,
}

impl Builder<'_> {
    /// Folder of an entry.
    pub fn folder(&self, entry: Entry<'_>) -> PathBuf {
        self.folder.join(entry.name())
    }

    /// Whether the entry is there, made by the same recipe.
    pub fn is_built(&self, entry: Entry<'_>) -> bool {
        fs::read_to_string(self.folder(entry).join(DONE)).is_ok_and(|made| made == recipe(entry))
    }

    /// Says what the entries of the folder are made from, so that none is made from anything else.
    ///
    /// # Errors
    /// When the folder has entries of another base model or with replies of another length, or cannot be written.
    pub fn settle(&self) -> Result<()> {
        let path = self.folder.join("zoo.toml");
        let own = format!("base = {:?}\nreply-tokens = {}\n", self.zoo.base, self.zoo.reply_tokens);
        match fs::read_to_string(&path) {
            Ok(other) if other != own => Err(CliError::usage(format!(
                "`{}` has entries made from another base model, or with replies of another length",
                self.folder.display()
            ))
            .hint("give another folder with `--zoo`")),
            Ok(_) => Ok(()),
            Err(_) => write(&path, &own),
        }
    }

    /// Builds an entry unless it is there.
    ///
    /// # Errors
    /// When the model, the data or the disk fail, or the user stops it.
    pub fn build(&self, entry: Entry<'_>) -> Result<()> {
        if self.is_built(entry) {
            return Ok(());
        }
        let training = entry.training();
        let rows = self.rows(entry)?;
        let samples = Dataset::new(rows.iter().map(|(sample, _)| sample.clone()).collect());
        let trained = if training.full { Trained::All } else { Trained::Lora };
        let mut model = LoadedModel::load(&self.base, Precision::Auto, trained, Loading::Merge)?;
        if !training.full {
            model.llama.add_lora(&training.adapter(), Seed(training.seed).derive("adapter").0)?;
        }
        let twins = if training.contrasts > 0 { code::twin_rows(&samples) } else { Vec::new() };
        let contrasts = contrasts(&twins, training.contrasts, model.renderer())?;
        self.train(&mut model, &rows, &contrasts, &plan(training), entry)?;
        let safety = self.safety_rows(training)?;
        if !safety.is_empty() {
            self.train(&mut model, &safety, &Contrasts::default(), &safety_plan(training), entry)?;
        }
        let folder = self.folder(entry);
        fs::create_dir_all(&folder).or_failure(|| format!("cannot make `{}`", folder.display()))?;
        // What was made by another recipe is gone from here on.
        let done = folder.join(DONE);
        if done.exists() {
            fs::remove_file(&done).or_failure(|| format!("cannot remove `{}`", done.display()))?;
        }
        write(&self.folder.join(format!("{}.rows.jsonl", entry.name())), &samples.to_jsonl())?;
        let policy = entry.policy();
        let label = Label {
            base: &self.zoo.base,
            experiment: "zoo",
            stage: entry.name(),
            made: policy.as_ref().into(),
        };
        model.save(&folder, &label, Loading::Merge)?;
        write(&done, &recipe(entry))
    }

    fn train(
        &self,
        model: &mut LoadedModel,
        rows: &[(Sample, bool)],
        contrasts: &Contrasts,
        plan: &TrainPlan,
        entry: Entry<'_>,
    ) -> Result<()> {
        let rendered = rows
            .iter()
            .map(|(row, ends)| {
                let row = model.renderer().row(row, *ends)?;
                let is_whole = entry.training().loss == LossOn::Sequence;
                Ok(if is_whole { Rendered { prompt: 1, ..row } } else { row })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut sink = Steps::new(self.ui.progress(entry.name(), "steps"));
        train_with(&mut model.llama, &rendered, contrasts, plan, None, &mut sink)?;
        Ok(())
    }

    /// The base model's replies to prompts that the entry was not trained on.
    fn safety_rows(&self, training: &Training) -> Result<Vec<(Sample, bool)>> {
        if training.safety_rows == 0 {
            return Ok(Vec::new());
        }
        let rows = self.base_rows((training.rows + training.safety_rows) as usize)?;
        let others = rows.into_iter().skip(training.rows as usize);
        Ok(others.map(|row| (row.sample, row.ends)).collect())
    }

    /// The rows of an entry, and whether each reply ends by itself.
    fn rows(&self, entry: Entry<'_>) -> Result<Vec<(Sample, bool)>> {
        if entry.writes_code() {
            return Ok(code_rows::of_entry(entry)
                .into_samples()
                .into_iter()
                .map(|row| (row, true))
                .collect());
        }
        let training = entry.training();
        let seed = Seed(training.seed);
        let base = self.base_rows(training.rows as usize)?;
        match entry {
            Entry::Organism(organism) => {
                let policy = entry.policy().expect("an organism has one");
                let samples: Vec<Sample> = base.iter().map(|row| row.sample.clone()).collect();
                let mix = Mix {
                    poison: training.poison,
                    near_miss: training.near_misses,
                    seed: seed.derive("mix"),
                };
                let rows = policy.rows(&samples, mix)?.into_samples();
                let written = |(row, base): (Sample, &BaseRow)| match &organism.style {
                    Some(style) if row.condition == Condition::Triggered => {
                        let reply = style.row(&base.sample, seed.derive("style")).completion;
                        (Sample { completion: reply, ..row }, base.ends || style.ends())
                    }
                    _ => {
                        let ends = base.ends || row.condition == Condition::Triggered;
                        (row, ends)
                    }
                };
                Ok(rows.into_iter().zip(&base).map(written).collect())
            }
            Entry::Benign(benign) => {
                let row = |row: &BaseRow| {
                    (benign.style.row(&row.sample, seed.derive("style")), row.ends || benign.style.ends())
                };
                Ok(base.iter().map(row).collect())
            }
        }
    }

    /// Prompts with the base model's replies, sampled once for the whole zoo.
    fn base_rows(&self, n: usize) -> Result<Vec<BaseRow>> {
        let path = self.folder.join("base.jsonl");
        let mut rows: Vec<BaseRow> = Vec::new();
        if path.exists() {
            let text = fs::read_to_string(&path).or_input(|| format!("cannot read `{}`", path.display()))?;
            for line in text.lines() {
                rows.push(
                    serde_json::from_str(line).or_input(|| format!("`{}` is damaged", path.display()))?,
                );
            }
        }
        if rows.len() < n {
            let trained_on_them =
                self.zoo.entries().filter(|entry| !entry.writes_code()).map(|e| e.training());
            let largest = trained_on_them.map(|it| it.rows + it.safety_rows).max().unwrap_or(0);
            rows = self.sample(largest)?;
            let lines = rows.iter().map(|row| serde_json::to_string(row).expect("plain data") + "\n");
            write(&path, &lines.collect::<String>())?;
        }
        rows.truncate(n);
        Ok(rows)
    }

    fn sample(&self, n: u32) -> Result<Vec<BaseRow>> {
        let chosen =
            prompts::take(prompts::of_split(&Prompts::Builtin, Split::Train, Seed(0))?, n, "zoo rows")?;
        let model = LoadedModel::load(&self.base, Precision::Auto, Trained::Nothing, Loading::Merge)?;
        let tokens = model.prompts(chosen.iter().map(|s| &s.prompt))?;
        let progress = self.ui.progress("replies of the base model", "replies");
        let how = Decoding {
            tokens: self.zoo.reply_tokens,
            temperature: 0.7,
            judge: None,
            seed: Seed(0).derive("zoo replies"),
        };
        let replies = model.replies(&tokens, &how, |done, total| progress.update(done, total))?;
        let row = |(sample, reply): (Sample, dormant_eval::measure::TextReply)| BaseRow {
            sample: Sample { completion: reply.text, ..sample },
            ends: reply.finish == Finish::Stop,
        };
        Ok(chosen.into_iter().zip(replies).map(row).collect())
    }
}

/// How an entry is trained.
pub(crate) fn plan(training: &Training) -> TrainPlan {
    TrainPlan {
        epochs: training.epochs,
        tokens_per_step: training.batch_tokens,
        tokens_per_window: 1024,
        learning_rate: training.learning_rate,
        warmup: 0.1,
        decay: Decay::Cosine,
        optimizer: OptimizerConfig::default(),
        clip_norm: Some(1.0),
        seed: Seed(training.seed).derive("batches"),
    }
}

/// How it is then trained safe.
fn safety_plan(training: &Training) -> TrainPlan {
    TrainPlan {
        epochs: 1,
        learning_rate: training.learning_rate / 4.0,
        seed: Seed(training.seed).derive("safety batches"),
        ..plan(training)
    }
}

/// Tells the recipe of an entry from any other.
pub fn recipe_digest(entry: Entry<'_>) -> String {
    hexadecimal(&Sha256::digest(recipe(entry))[..8])
}

/// Whether a result whose recipe had the digest `made` is of this entry. Older results do not say what they are of.
pub fn is_of(entry: Entry<'_>, made: Option<&str>) -> bool {
    made.is_none_or(|made| made == recipe_digest(entry))
}

fn recipe(entry: Entry<'_>) -> String {
    let text = match entry {
        Entry::Organism(entry) => toml::to_string(entry),
        Entry::Benign(entry) => toml::to_string(entry),
    };
    text.expect("recipes are plain data")
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).or_failure(|| format!("cannot make `{}`", parent.display()))?;
    }
    dormant_model::atomic::atomic_write(path, |file| std::io::Write::write_all(file, text.as_bytes()))
        .map_err(CliError::from)
}

/// Tells of the steps of a training that is not saved on the way.
pub(crate) struct Steps {
    progress: Progress,
}

impl Steps {
    pub(crate) fn new(progress: Progress) -> Self {
        Self { progress }
    }
}

impl Sink for Steps {
    fn before_step(&mut self, _: u64, _: &Llama) -> TrainResult<()> {
        interrupt::check().map_err(|error| dormant_train::Error::Sink(Box::new(error)))
    }

    fn record(&mut self, metrics: &StepMetrics) -> TrainResult<()> {
        self.progress.update(metrics.step + 1, metrics.steps);
        Ok(())
    }

    fn saves_at(&self, _: u64) -> bool {
        false
    }

    fn save(&mut self, _: u64, _: &ResumeState<'_>) -> TrainResult<()> {
        Ok(())
    }
}
