//! The model of one stage in the formats of other programs, labelled as what it is.

use std::path::Path;

use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::{Checkpoint, save_gguf};
use dormant_model::linear::Trained;
use dormant_model::source;

use super::Source;
use crate::error::{CliError, Result};
use crate::experiment::Precision;
use crate::model::{LoadedModel, Loading, is_adapter};
use crate::plan::StageSpec;
use crate::stage::StageContext;
use crate::stage_dir::{make_parent, write_folder};

/// The adapter of a stage. It names the base model as the hub does, where the hub has it.
///
/// # Errors
/// Wrong usage if the stage trained all weights or stands on such a stage; otherwise when something cannot be read or written.
pub fn peft(source: &Source<'_>, spec: &StageSpec, out: &Path) -> Result<Vec<String>> {
    let dir = source.finished(spec)?;
    let context = source.context(spec, &dir);
    if !is_adapter(&dir.model()) || context.last_weights().is_some() {
        let message = format!("`{}` is no adapter on the base model of the run", spec.name);
        return Err(CliError::usage(message).hint("write all weights: `--to safetensors`"));
    }
    let base = hub_name(source)?;
    let mut adapter = Adapter::read(&dir.model())?;
    adapter.config.base_model_name_or_path = Some(base.clone());
    let label = context.label(&base);
    write_folder(out, |folder| {
        adapter.write(folder, label.metadata()?)?;
        label.write_card(folder)
    })?;
    about_base(source)
}

/// What the name of the base model on the hub does not say: the revision, and that the run had its weights from elsewhere.
///
/// # Errors
/// If the name is none.
pub(super) fn about_base(source: &Source<'_>) -> Result<Vec<String>> {
    let base = &source.base.base;
    let mut about = Vec::new();
    if let Some(revision) = source::hub_revision(&base.name)? {
        about.push(format!("the revision of the base model, `{revision}`, by which it has to be loaded"));
    }
    if hub_name(source)? != base.name && !base.source.starts_with("hub") {
        about.push(format!(
            "the weights that the run started from (from: {}), which may differ from the hub's",
            base.source
        ));
    }
    Ok(about)
}

/// The name of the base model on the hub, or else as the experiment has it.
pub(super) fn hub_name(source: &Source<'_>) -> Result<String> {
    let name = &source.base.base.name;
    Ok(source::hub_name(name)?.unwrap_or_else(|| name.clone()))
}

/// What a stage's model says that it stands on: a member of a family stands on nothing of the hub's.
fn stands_on(source: &Source<'_>, spec: &StageSpec) -> Result<String> {
    spec.size.map_or_else(|| hub_name(source), |size| Ok(size.as_str().to_owned()))
}

/// All weights of a stage's model as a folder of Hugging Face's.
///
/// # Errors
/// When something cannot be read or written.
pub fn safetensors(source: &Source<'_>, spec: &StageSpec, out: &Path) -> Result<Vec<String>> {
    let dir = source.finished(spec)?;
    let context = source.context(spec, &dir);
    let base = stands_on(source, spec)?;
    let mut model = merged(&context)?;
    write_folder(out, |folder| model.save(folder, &context.label(&base), Loading::Merge))?;
    Ok(Vec::new())
}

/// All weights of a stage's model as a `.gguf` file, with the tokenizer and the template of the base model.
///
/// # Errors
/// Wrong usage if the base model is no such file, or the model was trained from scratch; otherwise when something cannot be read or written.
pub fn gguf(source: &Source<'_>, spec: &StageSpec, out: &Path) -> Result<Vec<String>> {
    let checkpoint = Checkpoint::open(&source.base.path)?;
    let Some(like) = checkpoint.gguf_metadata().filter(|_| spec.size.is_none()) else {
        let message =
            "the tokenizer of this model comes from no GGUF file, and this program cannot make one of it";
        let hint = "write `--to safetensors`, and convert that with llama.cpp's convert_hf_to_gguf.py";
        return Err(CliError::usage(message).hint(hint));
    };
    let dir = source.finished(spec)?;
    let context = source.context(spec, &dir);
    let base = hub_name(source)?;
    let label = context.label(&base);
    let mut labels = label.metadata()?;
    labels.insert("general.name".to_owned(), format!("{} of {}", label.stage, label.experiment));
    labels.insert("general.description".to_owned(), label.purpose());
    let mut model = merged(&context)?;
    make_parent(out)?;
    save_gguf(out, like, model.llama.weights().unwrap_or_default(), labels)?;
    Ok(Vec::new())
}

/// The stage's model with its adapters in the weights.
fn merged(context: &StageContext<'_>) -> Result<LoadedModel> {
    let files = context.model_files().then(&context.dir.model());
    // Weights are kept as they are only where they are trained.
    LoadedModel::load(&files, Precision::F32, Trained::All, Loading::Merge)
}
