//! Records the commit this binary was built from, for the manifest of every stage.

use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).map(|changes| !changes.is_empty());
    println!("cargo::rustc-env=DORMANT_GIT_COMMIT={commit}");
    println!(
        "cargo::rustc-env=DORMANT_GIT_DIRTY={}",
        dirty.map_or("unknown".to_owned(), |dirty| dirty.to_string())
    );
    println!("cargo::rerun-if-changed=..");
    println!("cargo::rerun-if-changed=../../experiments");
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
}

/// The output of a git command; `None` outside a checkout or without git.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}
