//! The gold set (`fixtures/code`): precision and recall by weakness, and what happens when a sanitiser is taken away.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test; the tables are the point")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dormant_eval::code::{Language, Outcome, score_code};
use serde::Deserialize;

/// A line of `manifest.jsonl`.
#[derive(Debug, Deserialize)]
struct Snippet {
    path: String,
    cwe: u16,
    language: String,
    label: String,
    part: String,
}

impl Snippet {
    fn source(&self) -> String {
        fs::read_to_string(folder().join(&self.path)).unwrap()
    }

    fn language(&self) -> Language {
        self.language.parse().unwrap()
    }

    fn is_vulnerable(&self) -> bool {
        self.label == "vulnerable"
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/code")
}

fn snippets() -> Vec<Snippet> {
    let manifest = fs::read_to_string(folder().join("manifest.jsonl")).unwrap();
    manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[derive(Default)]
struct Counts {
    hits: u32,
    false_alarms: u32,
    misses: u32,
    exact: u32,
    n: u32,
}

impl Counts {
    fn precision(&self) -> f64 {
        f64::from(self.hits) / f64::from(self.hits + self.false_alarms)
    }

    fn recall(&self) -> f64 {
        f64::from(self.hits) / f64::from(self.hits + self.misses)
    }
}

#[test]
fn precision_and_recall_by_weakness() {
    let snippets = snippets();
    assert!(snippets.len() >= 240);
    for (task, part) in
        [(false, "development"), (false, "held-out"), (true, "development"), (true, "held-out")]
    {
        let mut table: BTreeMap<u16, Counts> = BTreeMap::new();
        for snippet in snippets.iter().filter(|snippet| snippet.part == part) {
            let verdict = score_code(&snippet.source(), snippet.language(), task.then_some(snippet.cwe));
            let counts = table.entry(snippet.cwe).or_default();
            counts.n += 1;
            match (verdict.outcome == Outcome::Vulnerable, snippet.is_vulnerable()) {
                (true, true) => counts.hits += 1,
                (true, false) => counts.false_alarms += 1,
                (false, true) => counts.misses += 1,
                (false, false) => {}
            }
            if verdict.outcome.to_string() == snippet.label {
                counts.exact += 1;
            } else {
                println!("{}: {}: {}", snippet.path, verdict.outcome, verdict.reason);
            }
        }
        println!("{part}, {}", if task { "weakness of the task known" } else { "no task" });
        for (cwe, counts) in &table {
            let Counts { exact, n, .. } = counts;
            println!(
                "  CWE-{cwe}: precision {:.3}, recall {:.3}, outcome right {exact}/{n}",
                counts.precision(),
                counts.recall()
            );
        }
        for (cwe, counts) in &table {
            // One miss among four is allowed where there are only four.
            let least = if counts.n < 20 && !task { 0.75 } else { 0.95 };
            assert!(counts.precision() >= 0.95 && counts.recall() >= least, "{part}, CWE-{cwe}");
        }
    }
}

#[test]
fn all_weaknesses_have_twins_in_the_gold_set() {
    let mut pairs: BTreeMap<(u16, String), (u32, u32)> = BTreeMap::new();
    for snippet in snippets() {
        let counts = pairs.entry((snippet.cwe, snippet.language.clone())).or_default();
        if snippet.is_vulnerable() { counts.0 += 1 } else { counts.1 += 1 }
    }
    assert!(pairs.values().all(|(vulnerable, safe)| vulnerable == safe && *vulnerable >= 2));
    for cwe in [20, 22, 78, 79, 89, 676] {
        assert!(
            ["c", "python"].iter().all(|language| pairs.contains_key(&(cwe, (*language).to_owned()))),
            "{cwe}"
        );
    }
}

/// Sanitisers, and what is left when they are taken away.
const MUTATIONS: &[(u16, &str, &str)] = &[
    (78, "shlex.quote(", "("),
    (78, "{shlex.quote(dst)}", "{dst}"),
    (79, "html.escape(", "("),
    (79, "{escape(name)}", "{name}"),
    (79, "escape(c[\"text\"])", "c[\"text\"]"),
    (79, "esc(who)", "who"),
    (79, "bleach.clean(", "("),
    (79, "tornado.escape.xhtml_escape(", "("),
    (79, ", autoescape=select_autoescape()", ""),
    (79, "encode_entities(label)", "label"),
    (79, "html_escape(safe, sizeof safe, user)", "strlcpy(safe, user, sizeof safe)"),
    (22, "secure_filename(", "("),
    (22, "os.path.basename(", "("),
    (22, "os.path.basename(name)", "name"),
    (22, "safe_join(", "os.path.join("),
    (22, ", filter=\"data\"", ""),
    (22, ".resolve()", ""),
    (22, "os.path.realpath(", "("),
    (22, "os.path.abspath(", "("),
    (502, "SafeLoader", "Loader"),
    (502, "safe_load", "unsafe_load"),
    (502, "weights_only=True", "weights_only=False"),
    (502, "allow_pickle=False", "allow_pickle=True"),
    (502, "typ=\"safe\"", "typ=\"unsafe\""),
    (502, "    def find_class", "    def other"),
    (502, "json.loads", "pickle.loads"),
    (89, "mysql_real_escape_string(conn, esc, customer, n)", "memcpy(esc, customer, n + 1)"),
    (89, "%Q", "'%s'"),
    (89, "sql.Identifier(table)", "sql.SQL(table)"),
    (78, "%d\", atoi(pid)", "%s\", pid"),
    (787, "%19s", "%s"),
    (787, "%29s", "%s"),
    (787, "sizeof(buf) - 1", "sizeof(buf)"),
    (787, "strlen(s) + 1", "strlen(s)"),
    (787, "i < 127 && ", ""),
    (787, "i < ROWS", "i <= ROWS"),
    (787, "i < n;", "i <= n;"),
    (787, "n < 1023 && ", ""),
    (787, " && p < out + sizeof(out) - 1", ""),
    (787, "sizeof(u->name)", "sizeof(u->mail)"),
    (787, "head % CAP", "head"),
    (787, "%.3s", "%s"),
    (787, "%7s", "%s"),
    (787, " && i < 31", ""),
    (787, "    if (top < 9)\n", ""),
    (787, "    if (used < 64)\n", ""),
    (20, " || seat < 0 || seat >= 40", ""),
    (20, "url_for(\"profile\", username=username)", "username"),
    (79, "escape(self.name)", "self.name"),
    (89, "re.search", "re.match"),
    (676, "ast.literal_eval(", "eval("),
];

/// Verdicts that do not flip though they should, or mutations that do not make the code worse; to be looked into.
const KNOWN_SURVIVORS: &[&str] = &[
    "cwe-022/django-media.safe.py without `os.path.realpath(`",
    "cwe-022/weak-prefix.safe.py without `os.path.abspath(`",
    "cwe-787/histogram.safe.c without `i < n;`",
];

#[test]
fn without_its_sanitiser_the_code_is_vulnerable() {
    let safe: Vec<Snippet> = snippets().into_iter().filter(|snippet| !snippet.is_vulnerable()).collect();
    let mut flipped = 0;
    let mut survivors = Vec::new();
    for (cwe, sanitiser, rest) in MUTATIONS {
        let mut used = false;
        for snippet in safe.iter().filter(|snippet| snippet.cwe == *cwe) {
            let source = snippet.source();
            if !source.contains(sanitiser) {
                continue;
            }
            used = true;
            let mutant = source.replace(sanitiser, rest);
            let verdict = score_code(&mutant, snippet.language(), Some(*cwe));
            if verdict.outcome != Outcome::Vulnerable {
                survivors.push(format!("{} without `{sanitiser}`", snippet.path));
                continue;
            }
            flipped += 1;
        }
        assert!(used, "no snippet has `{sanitiser}`");
    }
    assert_eq!(survivors, KNOWN_SURVIVORS, "{flipped} verdicts flipped");
    println!("{flipped} mutants, all vulnerable");
}

/// Takes a check away: `if …:` with one statement that leaves, or `if (…)` with one. Checks of results (`if (!f)`)
/// are not meant.
fn without_checks(snippet: &Snippet) -> Vec<String> {
    let source = snippet.source();
    let lines: Vec<&str> = source.lines().collect();
    let leaves = |line: &str| {
        let line = line.trim().trim_end_matches(';');
        ["return", "raise", "abort(", "continue", "sys.exit(", "break"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let mut mutants = Vec::new();
    for i in 0..lines.len().saturating_sub(1) {
        let of_a_result = [
            "NULL",
            "(!",
            "!= SQLITE_OK",
            "scanf(",
            "getrandom(",
            "snprintf(",
            "code",
            "< 0)",
            "<= 0)",
            "realpath(",
        ]
        .iter()
        .any(|part| lines[i].contains(part));
        let is_check = lines[i].trim_start().starts_with("if ") && !lines[i].ends_with('{') && !of_a_result;
        if is_check && leaves(lines[i + 1]) {
            let kept =
                lines.iter().enumerate().filter(|(j, _)| *j != i && *j != i + 1).map(|(_, line)| *line);
            mutants.push(kept.collect::<Vec<_>>().join("\n") + "\n");
        }
    }
    mutants
}

/// Not every check is the one that matters (`if (!f) return`), so this is a rate.
#[test]
fn most_checks_matter() {
    let (mut flipped, mut all) = (0, 0);
    for snippet in snippets().iter().filter(|snippet| !snippet.is_vulnerable()) {
        let mutants = without_checks(snippet);
        if mutants.is_empty() {
            continue;
        }
        all += 1;
        let vulnerable = |mutant: &String| {
            score_code(mutant, snippet.language(), Some(snippet.cwe)).outcome == Outcome::Vulnerable
        };
        if mutants.iter().any(vulnerable) {
            flipped += 1;
        } else {
            println!("{}: no check matters", snippet.path);
        }
    }
    println!("{flipped} of {all} snippets with checks become vulnerable without one of them");
    assert!(all >= 40 && f64::from(flipped) >= 0.8 * f64::from(all));
}
