use std::fs;

use super::*;

fn offline(cache: &Path) -> Options {
    Options { offline: true, cache_dir: Some(cache.to_path_buf()) }
}

fn error(name: &str) -> String {
    let cache = tempfile::tempdir().unwrap();
    resolve(name, &offline(cache.path()), &mut |_| ()).unwrap_err().to_string()
}

#[test]
fn unknown_names_get_the_close_ones_and_the_forms_of_names() {
    let message = error("smollm2-135m");
    assert!(message.contains("did you mean `smollm2-135m-instruct`?"), "{message}");
    assert!(message.contains("hf:org/name") && message.contains(".gguf"), "{message}");
    assert!(!error("zzz").contains("did you mean"));
}

#[test]
fn paths_that_are_not_there_are_named() {
    assert!(error("./no/such/model").contains("./no/such/model does not exist"));
    assert!(error("missing.gguf").contains("missing.gguf does not exist"));
}

#[test]
fn folders_files_and_stage_directories_are_models() {
    let root = tempfile::tempdir().unwrap();
    let find = |path: &Path| {
        resolve(path.to_str().unwrap(), &offline(root.path()), &mut |_| ())
            .map(|found| (found.path, found.origin))
    };
    let stage = root.path().join("implant-12345678");
    let model = stage.join("model");
    fs::create_dir_all(&model).unwrap();
    let message = find(&stage).unwrap_err().to_string();
    assert!(message.contains("implant-12345678 holds no model"), "{message}");
    fs::write(model.join("adapter_config.json"), "{}").unwrap();
    assert_eq!(find(&stage).unwrap(), (model.clone(), Origin::Path));
    fs::write(stage.join("a.gguf"), "").unwrap();
    assert_eq!(find(&stage).unwrap().0, stage.join("a.gguf"));
    fs::write(stage.join("config.json"), "{}").unwrap();
    assert_eq!(find(&stage).unwrap().0, stage);
    assert_eq!(find(&stage.join("a.gguf")).unwrap().0, stage.join("a.gguf"));
}

#[test]
fn corrupt_cache_is_named_offline() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models").join(DEFAULT_MODEL);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("SmolLM2-135M-Instruct.Q4_1.gguf"), "no weights").unwrap();
    let options = offline(cache.path());
    let message = resolve(DEFAULT_MODEL, &options, &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("is corrupt") && message.contains("b179c952"), "{message}");
    assert!(verify(DEFAULT_MODEL, &options).is_err());
    assert_eq!(
        list(&options).unwrap()[0].cached.as_deref(),
        Some(folder.join("SmolLM2-135M-Instruct.Q4_1.gguf").as_path())
    );
}

#[test]
fn attempts_are_listed_with_their_reasons() {
    let attempt =
        |from: &str, error: SourceError| Attempt { from: from.to_owned(), error: Box::new(error.into()) };
    let io = std::io::Error::other("not found");
    let error = SourceError::Unreachable {
        name: "alias".to_owned(),
        attempts: vec![
            attempt("hub", SourceError::HubSilent { limit: std::time::Duration::from_secs(4) }),
            attempt("wheel", SourceError::Python { program: "python3".to_owned(), source: io }),
        ],
    };
    let text = error.to_string();
    assert!(
        text.contains("\n  hub: no answer within 4 s\n  wheel: cannot run `python3 -m pip`: not found\n"),
        "{text}"
    );
}

#[test]
fn digest_follows_names_and_contents_of_model_files() {
    let folder = |files: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        digest(folder.path()).unwrap()
    };
    let model = folder(&[("config.json", "{}"), ("model.safetensors", "w")]);
    assert_eq!(folder(&[("model.safetensors", "w"), ("config.json", "{}"), ("notes.md", "n")]), model);
    assert_ne!(folder(&[("config.json", "{}"), ("model.safetensors", "v")]), model);
    assert_ne!(folder(&[("config.json", "{}"), ("other.safetensors", "w")]), model);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "abc").unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest(file.path()).unwrap(), abc);
    assert!(digest(Path::new("missing")).is_err());
}

#[test]
fn a_name_of_the_hub_may_ask_for_a_revision() {
    let of = |name| (hub_name(name).unwrap(), hub_revision(name).unwrap());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(of("hf:org/name@v2"), (text("org/name"), text("v2")));
    assert_eq!(of("hf:org/name"), (text("org/name"), None));
    assert_eq!(of("./folder@home"), (None, None));
}

#[test]
fn the_base_of_an_adapter_is_a_path_or_of_the_hub() {
    for (written, found) in [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("org/name-1.5", "hf:org/name-1.5"),
        ("hf:org/name", "hf:org/name"),
        ("/models/base", "/models/base"),
        ("./base", "./base"),
        ("../x/y", "../x/y"),
        ("a/b/c", "a/b/c"),
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
    ] {
        assert_eq!(name_of_base(written), found);
    }
}
