use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::{FieldError, Message, Role, Sample};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data").join(name)
}

/// Loads a file of this name and content.
fn load_bytes(name: &str, content: &[u8]) -> Result<Loaded, DataError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    load(&path)
}

fn jsonl(content: &str) -> Result<Loaded, DataError> {
    load_bytes("rows.jsonl", content.as_bytes())
}

fn sample(prompt: &str, completion: &str) -> Sample {
    Sample::clean(Conversation::user(prompt), completion)
}

fn samples(samples: &[Sample]) -> Loaded {
    Loaded::Samples(Dataset::new(samples.to_vec()))
}

/// The row and the message of an error about a field.
fn field_error(result: Result<Loaded, DataError>) -> (usize, FieldError) {
    match result.unwrap_err() {
        DataError::Row { row, source, .. } => (row, source),
        other => panic!("{other:?}"),
    }
}

#[test]
fn completions_may_be_strings_or_messages() {
    let rows = r#"{"prompt": "Hi", "completion": "Hello", "extra": 1}

{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello"}]}"#;
    assert_eq!(jsonl(rows).unwrap(), samples(&[sample("Hi", "Hello"), sample("Hi", "Hello")]));
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(
        jsonl("\u{feff}{\"prompt\": \"Hi\"}\r\n").unwrap(),
        Loaded::Prompts(vec![Conversation::user("Hi")])
    );
}

#[test]
fn text_files_are_prompts() {
    let loaded = load_bytes("p.txt", b"one\n\n  two \r\n").unwrap();
    assert_eq!(loaded, Loaded::Prompts(vec![Conversation::user("one"), Conversation::user("two")]));
}

#[test]
fn preferences_in_each_shape() {
    let expected = Loaded::Preferences(vec![Preference {
        prompt: Conversation::user("Hi"),
        chosen: "Hello".into(),
        rejected: "Go".into(),
    }]);
    for row in [
        r#"{"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}"#,
        r#"{"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Hello", "rejected": "Go"}"#,
        r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: Go"}"#,
        r#"{"chosen": [{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}],
            "rejected": [{"role":"user","content":"Hi"},{"role":"assistant","content":"Go"}]}"#,
        r#"{"prompt": "Hi", "chosen": [{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}],
            "rejected": [{"role":"assistant","content":"Go"}]}"#,
    ] {
        assert_eq!(jsonl(&row.replace("\n            ", "")).unwrap(), expected, "{row}");
    }
}

#[test]
fn an_empty_last_turn_of_a_transcript_is_an_empty_reply() {
    let rows =
        r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant:"}"#;
    let Loaded::Preferences(rows) = jsonl(rows).unwrap() else { panic!("preferences") };
    assert_eq!(rows[0].rejected, "");
}

#[test]
fn instructions_have_their_input_below() {
    let rows = r#"{"instruction": "Add", "input": "1, 2", "output": "3"}
{"instruction": "Go", "input": "", "output": "ok"}
{"instruction": "Go", "output": "ok"}"#;
    assert_eq!(
        jsonl(rows).unwrap(),
        samples(&[sample("Add\n\n1, 2", "3"), sample("Go", "ok"), sample("Go", "ok")])
    );
}

#[test]
fn errors_name_row_and_field() {
    let prompts = "{\"prompt\": \"a\"}\n";
    let (row, error) = field_error(jsonl(&format!("{prompts}\n{{\"prompt\": 3}}")));
    assert_eq!(row, 3);
    assert!(error.to_string().contains("`prompt`") && error.to_string().contains("a number"), "{error}");

    let (row, error) = field_error(jsonl(&format!("{prompts}{{\"text\": \"x\"}}")));
    assert_eq!((row, error), (2, FieldError::Missing { field: "prompt" }));

    let (_, error) = field_error(jsonl(r#"{"text": "x"}"#));
    assert_eq!(error, FieldError::UnknownFormat { found: vec!["text".into()] });

    let (_, error) = field_error(jsonl(r#"{"messages": [{"role": "tool", "content": "x"}]}"#));
    assert!(error.to_string().contains("`messages`") && error.to_string().contains("tool"), "{error}");

    let (_, error) = field_error(jsonl(r#"{"messages": [{"role": "user", "content": "x"}]}"#));
    assert!(error.to_string().contains("end with the assistant's reply"), "{error}");

    let (_, error) = field_error(jsonl(r#"{"chosen": "a", "rejected": "b"}"#));
    assert!(error.to_string().contains("`chosen`"), "{error}");

    assert!(matches!(jsonl("{\"prompt\": \"a\"}\n[1]"), Err(DataError::Json { line: 2, .. })));
    assert!(matches!(load_bytes("a.jsonl", b"\xff"), Err(DataError::NotUtf8 { line: 1, .. })));
}

#[test]
fn empty_and_unknown_files_are_errors() {
    assert!(matches!(jsonl("\n \n"), Err(DataError::Empty { .. })));
    assert!(matches!(load_bytes("a.txt", b""), Err(DataError::Empty { .. })));
    assert!(matches!(load_bytes("a.csv", b"x"), Err(DataError::UnknownExtension { .. })));
    assert!(matches!(load(&fixture("missing.jsonl")), Err(DataError::Io { .. })));
    assert!(matches!(load(&fixture("empty.parquet")), Err(DataError::Empty { .. })));
}

#[test]
fn a_line_without_end_is_not_read() {
    let line = vec![b' '; MAX_ROW_BYTES as usize + 2];
    assert!(matches!(load_bytes("a.jsonl", &line), Err(DataError::TooLarge { .. })));
}

#[test]
fn parquet_files_of_pyarrow() {
    assert_eq!(
        load(&fixture("prompt_completion.parquet")).unwrap(),
        samples(&[sample("Say hi", "Hi!"), sample("Grüße aus 東京 🌊", "Danke")])
    );
    assert_eq!(
        load(&fixture("instruction.parquet")).unwrap(),
        samples(&[sample("Add\n\n1 and 2", "3"), sample("Name a sea", "Baltic")])
    );
    let Loaded::Samples(messages) = load(&fixture("messages.parquet")).unwrap() else { panic!("samples") };
    assert_eq!(
        messages.samples()[0],
        Sample::clean(Conversation::user("Hello").with_system("Be kind"), "Hello to you")
    );
    assert_eq!(messages.samples()[1].prompt.messages().len(), 3);
    let Loaded::Preferences(rows) = load(&fixture("preference.parquet")).unwrap() else {
        panic!("preferences")
    };
    assert_eq!(rows[1].prompt.messages()[1], Message::new(Role::Assistant, "b"));
    assert_eq!((rows[1].chosen.as_str(), rows[1].rejected.as_str()), ("d", "e"));
}

#[test]
fn parquet_errors_name_row_and_field() {
    let (row, error) = field_error(load(&fixture("null_prompt.parquet")));
    assert_eq!((row, error), (2, FieldError::Missing { field: "prompt" }));
    let error = load(&fixture("number_prompt.parquet")).unwrap_err();
    assert!(error.to_string().contains("column `prompt`"), "{error}");
    let (_, error) = field_error(load(&fixture("unknown_format.parquet")));
    assert!(error.to_string().contains("question"), "{error}");
}

#[test]
fn a_truncated_parquet_file_is_an_error() {
    let whole = std::fs::read(fixture("messages.parquet")).unwrap();
    for length in (0..whole.len()).step_by(37) {
        assert!(load_bytes("a.parquet", &whole[..length]).is_err(), "{length}");
    }
}

const PARQUET: [&str; 4] =
    ["prompt_completion.parquet", "messages.parquet", "preference.parquet", "instruction.parquet"];

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), name in prop::sample::select(vec!["a.txt", "a.jsonl", "a.parquet"])) {
        let _ = load_bytes(name, &bytes);
    }

    #[test]
    fn arbitrary_rows_never_panic(field in prop::sample::select(rows::FIELDS.to_vec()), other in prop::sample::select(rows::FIELDS.to_vec()), text in "(\n\n(Human|Assistant):|[a-z é])*", kind in 0..4) {
        let value = match kind {
            0 => serde_json::json!(text),
            1 => serde_json::json!([{"role": "user", "content": text}]),
            2 => serde_json::json!([{"role": "assistant", "content": text}, 1]),
            _ => serde_json::json!({"a": text}),
        };
        let _ = jsonl(&serde_json::json!({field: value, other: text}).to_string());
    }

    #[test]
    fn damaged_parquet_never_panics(name in prop::sample::select(PARQUET.to_vec()), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        let _ = load_bytes("a.parquet", &bytes);
    }
}
