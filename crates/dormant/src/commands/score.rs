//! `dormant score`: static analysis of code files and replies.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use dormant_eval::code::{self, Language, Outcome, ScoredFile, Verdict};
use dormant_eval::{Rate, Score, Tally, Unscored};
use serde::Serialize;

use crate::cli::ScoreArgs;
use crate::error::{CliError, Context, Result};
use crate::tool_output::{ToolFile, ToolOutput};
use crate::ui::Ui;

mod compare;

use self::compare::Agreement;

/// Version of the JSON layout.
const SCHEMA_VERSION: u32 = 1;
/// Longer files are not read to their end; the scorer refuses them anyway.
const MAX_BYTES: u64 = 1 << 20;

/// What the command prints as JSON.
#[derive(Debug, Serialize)]
struct Scores {
    schema_version: u32,
    files: Vec<ScoredFile>,
    summary: Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    agreement: Vec<Agreement>,
}

#[derive(Debug, Serialize)]
struct Summary {
    vulnerable: u64,
    safe: u64,
    unscorable: u64,
    other_weakness: u64,
    /// Vulnerable files among those that are vulnerable, safe or have another weakness.
    rate: Rate,
}

pub(super) fn run(args: &ScoreArgs, ui: &Ui) -> Result<()> {
    let mut files = Vec::new();
    for path in code_files(&args.paths)? {
        files.push(score(&path, args)?);
    }
    let compared = |given: &ToolFile| {
        Ok(compare::compare(&ToolOutput::read(&given.tool, &given.path)?, &files, args.cwe))
    };
    let agreement = args.compare.iter().map(compared).collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.sarif {
        let text = serde_json::to_string_pretty(&code::sarif(&files)).or_failure(|| "cannot write SARIF")?;
        fs::write(path, text + "\n").or_failure(|| format!("cannot write `{}`", path.display()))?;
    }
    let summary = summary(&files);
    ui.result(&Scores { schema_version: SCHEMA_VERSION, files, summary, agreement }, text)
}

/// The files that the arguments name, those of folders in the order of their names.
fn code_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(path.clone());
            continue;
        }
        let unreadable =
            |source| CliError::input(format!("cannot read `{}`", path.display())).caused_by(source);
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        walk(path, &mut files)?;
        if files.len() == before {
            return Err(CliError::input(format!("there is no .py, .c or .h file in `{}`", path.display()))
                .hint("name a file itself to have it read as a model's reply"));
        }
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable =
        |source| CliError::input(format!("cannot read `{}`", folder.display())).caused_by(source);
    let entries =
        fs::read_dir(folder).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let mut entries: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        // A link could lead back up.
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            walk(&path, files)?;
        } else if Language::of_path(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

fn score(path: &Path, args: &ScoreArgs) -> Result<ScoredFile> {
    let text = read(path)?;
    let language = args.language.or_else(|| Language::of_path(path));
    // A reply may lie in a file that is called like code, and code may have fences in its comments.
    let fenced = text.lines().any(|line| line.trim_start().starts_with("```"));
    let is_code = |language: &Language| {
        Language::of_path(path).is_some() && (!fenced || code::is_program(&text, *language))
    };
    let verdict: Verdict = match language.filter(is_code) {
        Some(language) => code::score_code(&text, language, args.cwe),
        None => code::score_reply(&text, language, args.cwe),
    };
    let name = if path.as_os_str() == "-" { "<stdin>".to_owned() } else { path.display().to_string() };
    Ok(ScoredFile { path: name, verdict })
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let result = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
    };
    result
        .map_err(|source| CliError::input(format!("cannot read `{}`", path.display())).caused_by(source))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn summary(files: &[ScoredFile]) -> Summary {
    let count = |outcome| files.iter().filter(|file| file.verdict.outcome == outcome).count() as u64;
    let tally: Tally = files
        .iter()
        .map(|file| match file.verdict.outcome {
            Outcome::Vulnerable => Score::Shown,
            Outcome::Safe | Outcome::OtherWeakness => Score::NotShown,
            Outcome::Unscorable => Score::Unscored(Unscored::NoCode),
        })
        .collect();
    Summary {
        vulnerable: count(Outcome::Vulnerable),
        safe: count(Outcome::Safe),
        unscorable: count(Outcome::Unscorable),
        other_weakness: count(Outcome::OtherWeakness),
        rate: tally.rate(),
    }
}

fn text(scores: &Scores) -> String {
    let mut lines: Vec<String> = scores
        .files
        .iter()
        .map(|ScoredFile { path, verdict }| format!("{path}: {}: {}", verdict.outcome, verdict.reason))
        .collect();
    let Summary { vulnerable, safe, unscorable, other_weakness, rate } = &scores.summary;
    lines.push(format!(
        "{vulnerable} vulnerable, {safe} safe, {other_weakness} with another weakness, {unscorable} unscorable; rate {rate}"
    ));
    lines.extend(scores.agreement.iter().map(Agreement::to_text));
    lines.join("\n")
}
