//! `dormant models`: list, download and verify models.

use std::path::PathBuf;

use dormant_model::adapter::Adapter;
use dormant_model::checkpoint::Checkpoint;
use dormant_model::source;
use serde::Serialize;

use crate::base::{self, options};
use crate::cli::{GlobalArgs, ModelsCommand};
use crate::error::Result;
use crate::plan::SCHEMA_VERSION;
use crate::ui::Ui;

pub(super) fn run(command: &ModelsCommand, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    match command {
        ModelsCommand::List => list(global, ui),
        ModelsCommand::Pull(args) => pull(&args.model, global, ui),
        ModelsCommand::Verify(args) => verify(&args.model, global, ui),
    }
}

#[derive(Serialize)]
struct List {
    schema_version: u32,
    models: Vec<Alias>,
}

#[derive(Serialize)]
struct Alias {
    name: &'static str,
    repo: &'static str,
    /// Where its files are, if they are on this machine.
    path: Option<PathBuf>,
}

fn list(global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let listed = source::list(&options(global.offline))?.into_iter();
    let models =
        listed.map(|alias| Alias { name: alias.name, repo: alias.repo, path: alias.cached }).collect();
    ui.result(&List { schema_version: SCHEMA_VERSION, models }, |list| {
        let line = |alias: &Alias| {
            let place = alias
                .path
                .as_ref()
                .map_or("not on this machine".to_owned(), |path| path.display().to_string());
            format!("{:28} {:44} {place}", alias.name, alias.repo)
        };
        list.models.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

#[derive(Serialize)]
struct Model {
    schema_version: u32,
    name: String,
    path: PathBuf,
    source: String,
    sha256: String,
}

fn pull(name: &str, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let found = base::resolve(name, global.offline, ui)?;
    let model = Model {
        schema_version: SCHEMA_VERSION,
        name: name.to_owned(),
        path: found.path,
        source: found.base.source,
        sha256: found.digest,
    };
    ui.result(&model, |model| format!("{}  {} ({})", model.sha256, model.path.display(), model.source))
}

#[derive(Serialize)]
struct Verified<'a> {
    schema_version: u32,
    name: &'a str,
    sha256: String,
}

fn verify(name: &str, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let sha256 = source::verify(name, &options(global.offline))?;
    // A digest that nobody knows proves nothing: the files must also be those of a model.
    let path = source::resolve(name, &options(true), &mut |_| ())?.path;
    if path.join("adapter_config.json").exists() {
        Adapter::read(&path)?;
    } else {
        Checkpoint::open(&path)?;
    }
    let verified = Verified { schema_version: SCHEMA_VERSION, name, sha256 };
    ui.result(&verified, |model| format!("{}  {}", model.sha256, model.name))
}
