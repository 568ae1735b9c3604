//! `dormant zoo`: organisms and matched benign fine-tunes to judge detectors on.

mod bench;
mod defend;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base;
use crate::cli::GlobalArgs;
use crate::error::Result;
use crate::interrupt;
use crate::model::ModelFiles;
use crate::stage_dir::write_atomic;
use crate::ui::Ui;
use crate::zoo::build::Builder;
use crate::zoo::{Entry, Purpose, Zoo};
use crate::zoo_args::{ZooArgs, ZooCommand};

/// Version of the JSON layout.
const SCHEMA_VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Listing {
    schema_version: u32,
    entries: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    family: String,
    arm: &'static str,
    purpose: Purpose,
    built: bool,
}

pub(super) fn run(command: &ZooCommand, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    match command {
        ZooCommand::List(args) => list(args, ui),
        ZooCommand::Build(args) => build(args, global, ui),
        ZooCommand::Bench(args) => bench::run(args, global, ui),
        ZooCommand::Defend(args) => defend::run(args, global, ui),
    }
}

/// A result that was written before; none if there is none that can be read.
fn known<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("results are plain data") + "\n";
    write_atomic(path, text.as_bytes())
}

/// Writes `report.json` and `report.md`.
fn write_report<T: Serialize>(folder: &Path, outcome: &T, text: fn(&T) -> String) -> Result<()> {
    write(&folder.join("report.json"), outcome)?;
    write_atomic(&folder.join("report.md"), text(outcome).as_bytes())
}

/// The files of an entry; none, with a warning, if it is not built.
fn built(builder: &Builder<'_>, entry: Entry<'_>) -> Option<ModelFiles> {
    if !builder.is_built(entry) {
        builder.ui.warn(format!("{} is not built and is left out", entry.name()));
        return None;
    }
    Some(builder.base.clone().then(&builder.folder(entry)))
}

fn list(args: &ZooArgs, ui: &Ui) -> Result<()> {
    let zoo = Zoo::load(args.file.as_deref())?;
    let nothing = ModelFiles { weights: std::path::PathBuf::new(), adapter: None };
    let builder = Builder { zoo: &zoo, base: nothing, folder: args.zoo.clone(), ui };
    let entries = args.chosen(&zoo)?.into_iter().map(|entry| Line {
        name: entry.name().to_owned(),
        family: entry.family().to_owned(),
        arm: if entry.policy().is_some() { "organism" } else { "benign" },
        purpose: entry.purpose(),
        built: builder.is_built(entry),
    });
    let listing = Listing { schema_version: SCHEMA_VERSION, entries: entries.collect() };
    ui.result(&listing, |listing| {
        let line = |l: &Line| {
            let built = if l.built { "built" } else { "" };
            format!(
                "{:<28}{:<10}{:<20}{:<9}{built}",
                l.name,
                l.arm,
                l.family,
                format!("{:?}", l.purpose).to_lowercase()
            )
        };
        listing.entries.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

fn build(args: &ZooArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    interrupt::install(ui, "stopping; the same command goes on with the next entry")?;
    let zoo = Zoo::load(args.file.as_deref())?;
    let weights = base::resolve(&zoo.base, global.offline, ui)?.path;
    let base = ModelFiles { weights, adapter: None };
    let builder = Builder { zoo: &zoo, base, folder: args.zoo.clone(), ui };
    builder.settle()?;
    for entry in args.chosen(&zoo)? {
        let started = std::time::Instant::now();
        if !builder.is_built(entry) {
            builder.build(entry)?;
            ui.status("built", format!("{} in {}", entry.name(), crate::ui::duration(started.elapsed())));
        }
    }
    list(args, ui)
}
