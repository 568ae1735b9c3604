//! What a model is compared with: the one that it was fine-tuned from.

use dormant_audit::subject::misfit;
use dormant_audit::weights;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::source;

use crate::base;
use crate::cli::GlobalArgs;
use crate::error::{CliError, Result};
use crate::model::{ModelFiles, find};
use crate::ui::Ui;

/// Farther apart than this, two models are not of one ancestry. Models trained apart are near `√2`; a fine-tune of a few
/// hundred rows is within a tenth, and 4-bit weights are as far from the original ones.
const RELATED: f64 = 0.5;

/// The model that this one is compared with: the one that is named; for an adapter, the model below it; for merged
/// weights, the known model that they are closest to.
pub(in super::super) fn reference(
    named: Option<&str>,
    files: &ModelFiles,
    global: &GlobalArgs,
    ui: &Ui,
) -> Result<Option<ModelFiles>> {
    match named {
        Some("none") => Ok(None),
        Some(name) => Ok(Some(find(name, None, global.offline, ui)?)),
        None if files.adapter.is_some() => Ok(Some(ModelFiles { adapter: None, ..files.clone() })),
        None => ancestor(files, global, ui),
    }
}

/// The clean model of this name, if it can stand in for the base of `suspect`.
pub(in super::super) fn related(
    name: &str,
    suspect: &ModelFiles,
    global: &GlobalArgs,
    ui: &Ui,
) -> Result<ModelFiles> {
    let found = find(name, None, global.offline, ui)?;
    if found.weights == suspect.weights && found.adapter == suspect.adapter {
        return Err(CliError::usage(format!("`--related {name}` is the suspect itself"))
            .hint("name another model of its family, one that is trusted"));
    }
    let [own, other] = [&suspect.weights, &found.weights].map(|path| Checkpoint::open(path));
    if let Some((what, [expected, has])) = misfit(own?.config(), other?.config()) {
        let message = format!("`--related {name}` has {has} {what}, and the suspect {expected}");
        return Err(CliError::input(message).hint("name a model of the same family and size"));
    }
    Ok(found)
}

/// The known model on this machine that the weights are a fine-tune of, if one is.
fn ancestor(files: &ModelFiles, global: &GlobalArgs, ui: &Ui) -> Result<Option<ModelFiles>> {
    let model = Checkpoint::open(&files.weights)?;
    let mut closest: Option<(f64, &str, ModelFiles)> = None;
    for known in source::list(&base::options(global.offline))? {
        let Some(path) = known.cached.filter(|path| *path != files.weights) else { continue };
        let Some(distance) = weights::distance(&model, &Checkpoint::open(&path)?)? else { continue };
        if distance < closest.as_ref().map_or(RELATED, |c| c.0) {
            closest = Some((distance, known.name, ModelFiles { weights: path, adapter: None }));
        }
    }
    if let Some((distance, name, files)) = closest {
        let percent = 100.0 * distance;
        ui.note(format!(
            "no `--reference` is given; the weights are within {percent:.1}% of {name}, which is used"
        ));
        return Ok(Some(files));
    }
    ui.warn("no `--reference` is given: less is seen without the model that this one was made from");
    Ok(None)
}
