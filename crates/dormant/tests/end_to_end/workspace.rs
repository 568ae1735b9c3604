//! A folder of its own for each test, and the binary in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A path under `fixtures/`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name).canonicalize().unwrap()
}

/// What the binary returned and printed; paths of this machine are replaced by names.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// An empty folder, removed in the end.
pub(crate) struct Workspace {
    folder: TempDir,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    /// The binary, quiet and offline, with a cache that has nothing in it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("dormant"));
        command
            .args(arguments)
            .args(["--quiet", "--offline"])
            .current_dir(self.path())
            .env("COLUMNS", "100")
            .env("DORMANT_CACHE", self.path().join("cache"))
            .env("HF_HOME", self.path().join("hub"))
            .env_remove("RUST_BACKTRACE");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        let named = |bytes: &[u8]| {
            let fixtures = fixture("").display().to_string();
            let text = String::from_utf8_lossy(bytes).replace(fixtures.trim_end_matches('/'), "[fixtures]");
            text.replace(&self.path().display().to_string(), "[folder]")
        };
        Output {
            code: output.status.code().unwrap(),
            stdout: named(&output.stdout),
            stderr: named(&output.stderr),
        }
    }
}
