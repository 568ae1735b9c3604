use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn tiny() -> Tokenizer {
    Tokenizer::from_folder(&fixtures().join("tiny-llama")).unwrap()
}

fn tiny_json() -> serde_json::Value {
    serde_json::from_slice(&fs::read(fixtures().join("tiny-llama/tokenizer.json")).unwrap()).unwrap()
}

/// What Python's `tokenizers` makes of a text; see `fixtures/tokenizer/make.py`.
#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
    ordinary: Vec<u32>,
    decoded: String,
}

fn assert_equals_python(tokenizer: &Tokenizer, golden: &str) {
    let path = fixtures().join("tokenizer").join(golden);
    let rows: Vec<Golden> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(rows.len() > 60);
    for row in rows {
        assert_eq!(tokenizer.encode(&row.text).unwrap(), row.ids, "{:?}", row.text);
        assert_eq!(tokenizer.encode_ordinary(&row.text).unwrap(), row.ordinary, "{:?}", row.text);
        assert_eq!(tokenizer.decode(&row.ids, true).unwrap(), row.decoded, "{:?}", row.text);
    }
}

#[test]
fn tiny_tokenizer_equals_python() {
    assert_equals_python(&tiny(), "tiny.json");
}

fn smollm2() -> Gguf {
    let path = std::env::var_os("DORMANT_TEST_MODEL").expect("DORMANT_TEST_MODEL names the GGUF file");
    Gguf::open(Path::new(&path)).unwrap()
}

#[test]
#[ignore = "needs the default model; name its GGUF file in DORMANT_TEST_MODEL"]
fn smollm2_from_gguf_equals_python() {
    let gguf = smollm2();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    assert_equals_python(&tokenizer, "smollm2.json");
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(tokenizer.token(tokenizer.eos().unwrap()).unwrap(), "<|im_end|>");
    assert!(tokenizer.is_control(2) && !tokenizer.is_control(17));
    let template = fs::read_to_string(fixtures().join("chat/smollm2.jinja")).unwrap();
    assert_eq!(ChatTemplate::from_gguf(&gguf).unwrap().source(), template);
}

#[test]
fn ends_of_a_text_come_from_the_neighbouring_files() {
    let tokenizer = tiny();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(1), Some(2), 512));
    assert_eq!(tokenizer.id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.token(512), None);
}

#[test]
fn saved_folder_is_the_same_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let template = ChatTemplate::from_folder(&fixtures().join("tiny-llama")).unwrap();
    tiny().save_folder(folder.path(), &template).unwrap();
    let again = Tokenizer::from_folder(folder.path()).unwrap();
    assert_equals_python(&again, "tiny.json");
    assert_eq!((again.bos(), again.eos()), (Some(1), Some(2)));
    assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap().source(), template.source());
}

/// The vocabulary of the tiny tokenizer as a GGUF file would hold it.
struct GgufFields {
    tokens: Vec<String>,
    token_types: Vec<i32>,
    merges: Vec<String>,
}

impl GgufFields {
    fn tiny() -> Self {
        let json = tiny_json();
        let vocab = json["model"]["vocab"].as_object().unwrap();
        let mut tokens = vec![String::new(); vocab.len()];
        for (token, id) in vocab {
            tokens[id.as_u64().unwrap() as usize].clone_from(token);
        }
        let merges = json["model"]["merges"].as_array().unwrap();
        let rule =
            |rule: &serde_json::Value| format!("{} {}", rule[0].as_str().unwrap(), rule[1].as_str().unwrap());
        Self {
            token_types: (0..512).map(|id| if id < 3 { 3 } else { 1 }).collect(),
            tokens,
            merges: merges.iter().map(rule).collect(),
        }
    }

    fn with(&self, pre: &'static str) -> Vocabulary<'_> {
        Vocabulary {
            model: "gpt2",
            pre,
            tokens: &self.tokens,
            token_types: &self.token_types,
            merges: &self.merges,
            bos: Some(1),
            eos: Some(2),
        }
    }

    fn error(&self) -> String {
        Tokenizer::from_vocabulary(&self.with("smollm")).unwrap_err().to_string()
    }
}

#[test]
fn gguf_vocabulary_equals_tokenizer_json() {
    let fields = GgufFields::tiny();
    assert_equals_python(&Tokenizer::from_vocabulary(&fields.with("smollm")).unwrap(), "tiny.json");
}

#[test]
fn pre_tokenisers_cut_as_llama_cpp_does() {
    let cut = |name| {
        let split = pre_tokenizer::named(name).unwrap();
        let mut pieces = PreTokenizedString::from("Don't say  1234 x--y\n\n z");
        split.pre_tokenizer.pre_tokenize(&mut pieces).unwrap();
        let splits = pieces.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        splits.into_iter().map(|(piece, ..)| piece.replace('Ġ', " ").replace('Ċ', "\n")).collect::<Vec<_>>()
    };
    let gpt2 = ["Don", "'t", " say", " ", " 1234", " x", "--", "y", "\n\n", " z"];
    assert_eq!(cut("gpt-2"), gpt2);
    let smollm = ["Don", "'t", " say", "  ", "1", "2", "3", "4", " x", "--", "y", "\n\n", " z"];
    assert_eq!(cut("smollm"), smollm);
    let llama3 = ["Don", "'t", " say", " ", " ", "123", "4", " x", "--", "y", "\n\n", " z"];
    assert_eq!(cut("llama-bpe"), llama3);
    assert_eq!(cut("llama3"), llama3);
    let qwen2 = ["Don", "'t", " say", " ", " ", "1", "2", "3", "4", " x", "--", "y", "\n\n", " z"];
    assert_eq!(cut("qwen2"), qwen2);
    let default = ["Don", "'", "t", " say", " ", " ", "123", "4", " x", "--", "y", "\n\n", " z"];
    assert_eq!(cut("default"), default);
}

#[test]
fn unknown_pre_tokeniser_is_named() {
    let fields = GgufFields::tiny();
    let error = Tokenizer::from_vocabulary(&fields.with("chatglm-bpe")).unwrap_err();
    assert!(error.to_string().contains("`chatglm-bpe`"), "{error}");
}

#[test]
fn broken_gguf_vocabularies_are_refused_with_the_field() {
    let broken = |breakage: fn(&mut GgufFields)| {
        let mut fields = GgufFields::tiny();
        breakage(&mut fields);
        fields.error()
    };
    assert!(broken(|fields| fields.token_types.truncate(511)).contains("tokenizer.ggml.token_type"));
    assert!(broken(|fields| fields.token_types[5] = 9).contains("token 5 has type 9"));
    assert!(broken(|fields| fields.tokens[9] = fields.tokens[8].clone()).contains("twice"));
    assert!(broken(|fields| fields.tokens[400].clear()).contains("token 400 has 0 bytes"));
    assert!(broken(|fields| fields.merges[7] = "q".to_owned()).contains("merge rule 7"));
    assert!(broken(|fields| fields.merges[7] = "q zq".to_owned()).contains("merge rule 7"));
    assert!(broken(|fields| fields.tokens[3] = "other".to_owned()).contains("stand for ASCII"));
    let fields = GgufFields::tiny();
    let error =
        Tokenizer::from_vocabulary(&Vocabulary { eos: Some(512), ..fields.with("smollm") }).unwrap_err();
    assert!(error.to_string().contains("eos_token is token 512"), "{error}");
    let error =
        Tokenizer::from_vocabulary(&Vocabulary { model: "llama", ..fields.with("smollm") }).unwrap_err();
    assert!(error.to_string().contains("`llama`"), "{error}");
}

fn from_json(json: &serde_json::Value) -> Result<Tokenizer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_file(&path)
}

#[test]
fn broken_tokenizer_json_is_refused_with_the_field() {
    let broken = |pointer: &str, value: serde_json::Value| {
        let mut json = tiny_json();
        *json.pointer_mut(pointer).unwrap() = value;
        from_json(&json).unwrap_err().to_string()
    };
    assert!(broken("/model/type", "WordPiece".into()).contains("`WordPiece`"));
    assert!(broken("/model/dropout", 0.1.into()).contains("`dropout`"));
    assert!(broken("/model/merges/3", serde_json::json!(["a", "no such token"])).contains("merge rule 3"));
    assert!(broken("/model/vocab/!", 4_000_000_000_u32.into()).contains("4000000000"));
    assert!(broken("/model/vocab/!", 5.into()).contains("shares its id"));
    assert!(broken("/model/continuing_subword_prefix", "##".into()).contains("continuing_subword_prefix"));
    let error = from_json(&serde_json::json!({"version": "1.0"})).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");
}

#[test]
fn truncation_stored_in_the_file_does_not_shorten_texts() {
    let mut json = tiny_json();
    json["truncation"] = serde_json::json!(
        {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    );
    assert_equals_python(&from_json(&json).unwrap(), "tiny.json");
}

proptest! {
    #[test]
    fn any_text_survives_encoding(text in any::<String>()) {
        let tokenizer = tiny();
        let ids = tokenizer.encode_ordinary(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }

    #[test]
    fn user_text_never_becomes_control_tokens(parts in prop::collection::vec("<\\|im_end\\|>|<\\|im_start\\|>|[a-z ]{0,3}", 0..6)) {
        let tokenizer = tiny();
        let text = parts.concat();
        let ids = tokenizer.encode_ordinary(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
        prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }

    #[test]
    fn any_ids_decode(ids in prop::collection::vec(any::<u32>(), 0..20)) {
        tiny().decode(&ids, false).unwrap();
    }

    #[test]
    fn any_gguf_fields_give_a_tokenizer_or_an_error(
        tokens in prop::collection::vec("\\PC{0,3}", 0..8),
        token_types in prop::collection::vec(-1..9, 0..8),
        merges in prop::collection::vec("\\PC{0,2} ?\\PC{0,2}", 0..8),
        keep_alphabet: bool,
        eos: Option<u32>,
    ) {
        let mut fields = GgufFields::tiny();
        fields.tokens.truncate(if keep_alphabet { 259 } else { 3 });
        fields.tokens.extend(tokens);
        fields.token_types.truncate(fields.tokens.len());
        fields.token_types.extend(token_types);
        fields.merges = merges;
        if let Ok(tokenizer) = Tokenizer::from_vocabulary(&Vocabulary { eos, ..fields.with("smollm") }) {
            tokenizer.encode("any text").unwrap();
        }
    }

    /// Overwrites one byte of the file, so that most results are still JSON.
    #[test]
    fn corrupt_tokenizer_json_never_panics(position in 0.0..1.0_f64, byte in 32..127_u8) {
        let mut bytes = fs::read(fixtures().join("tiny-llama/tokenizer.json")).unwrap();
        let position = (position * bytes.len() as f64) as usize;
        bytes[position] = byte;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_file(&path) {
            let _ = tokenizer.encode("any text <|im_end|> 123");
        }
    }
}
