//! GGUF files that are damaged or lie, each refused with the field or tensor at fault.

use std::error::Error as _;

use dormant_model::checkpoint::Checkpoint;
use dormant_model::checkpoint::gguf::{Array, Gguf, GgufError, Value};
use dormant_model::config::ConfigError;
use dormant_model::error::Error;

use crate::bytes::{F32, GgufBytes, file, string, tiny_gguf};

fn open(bytes: &[u8]) -> Result<Gguf, Error> {
    Gguf::open(&file("model.gguf", bytes).path)
}

#[track_caller]
fn rejection(gguf: &GgufBytes) -> GgufError {
    match open(&gguf.build()) {
        Err(Error::Gguf { source, .. }) => source,
        other => panic!("expected a GGUF error, got {other:?}"),
    }
}

#[track_caller]
fn config_rejection(gguf: &GgufBytes) -> String {
    match Checkpoint::open(&file("model.gguf", &gguf.build()).path) {
        Err(Error::ConfigFile { source: ConfigError::Field { field, .. }, .. }) => field,
        other => panic!("expected a configuration error, got {other:?}"),
    }
}

#[track_caller]
fn assert_names(error: &GgufError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not name `{part}`");
    }
}

/// An array value: element type, announced length, elements.
fn array(kind: u32, length: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), elements].concat()
}

#[test]
fn every_metadata_type_is_read() {
    let nested = [array(0, 2, &[1, 2]), array(8, 1, &string("x"))].concat();
    let gguf = open(
        &GgufBytes::new()
            .with("u8", 0, &[200])
            .with("i8", 1, &[200])
            .with("u16", 2, &[1, 2])
            .with("i16", 3, &[0, 128])
            .with("u32", 4, &[1, 0, 0, 128])
            .with("i32", 5, &[255, 255, 255, 255])
            .with("f32", 6, &1.5f32.to_le_bytes())
            .with("bool", 7, &[1])
            .with("string", 8, &string("naïve"))
            .with("array", 9, &array(9, 2, &nested))
            .with("u64", 10, &u64::MAX.to_le_bytes())
            .with("i64", 11, &i64::MIN.to_le_bytes())
            .with("f64", 12, &0.1f64.to_le_bytes())
            .build(),
    )
    .unwrap();
    let value = |name: &str| gguf.metadata().find(|(key, _)| *key == name).unwrap().1.clone();
    assert_eq!(value("u8"), Value::Unsigned(200));
    assert_eq!(value("i8"), Value::Signed(-56));
    assert_eq!(value("u16"), Value::Unsigned(513));
    assert_eq!(value("i16"), Value::Signed(-32768));
    assert_eq!(value("u32"), Value::Unsigned(0x8000_0001));
    assert_eq!(value("i32"), Value::Signed(-1));
    assert_eq!(value("f32"), Value::Float32(1.5));
    assert_eq!(value("bool"), Value::Bool(true));
    assert_eq!(gguf.require::<&str>("string").unwrap(), "naïve");
    assert_eq!(
        value("array"),
        Value::Array(Array::Array(vec![Array::Uint8(vec![1, 2]), Array::String(vec!["x".to_owned()])]))
    );
    assert_eq!(value("u64"), Value::Unsigned(u64::MAX));
    assert_eq!(value("i64"), Value::Signed(i64::MIN));
    assert_eq!(gguf.require::<f64>("f64").unwrap(), 0.1);
    assert!(matches!(gguf.get::<u32>("absent"), Ok(None)));
    assert!(gguf.require::<u32>("u64").is_err());
}

#[test]
fn other_files_are_rejected() {
    assert!(matches!(
        open(b"PK\x03\x04....").unwrap_err(),
        Error::Gguf { source: GgufError::Magic { .. }, .. }
    ));
    assert!(matches!(open(b"GG").unwrap_err(), Error::Gguf { source: GgufError::Truncated { .. }, .. }));
    for version in [0, 1, 4, 3u32.swap_bytes()] {
        let gguf = GgufBytes { version, ..tiny_gguf("llama") };
        assert!(matches!(rejection(&gguf), GgufError::Version { found } if found == version));
    }
}

#[test]
fn every_truncation_is_rejected() {
    let bytes = tiny_gguf("llama").build();
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn truncated_tensor_is_named() {
    let bytes = tiny_gguf("llama").build();
    let error = open(&bytes[..bytes.len() - 1]).unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains("blk.0.ffn_down.weight") && source.contains("truncated"), "{source}");
}

#[test]
fn tensor_count_bomb_is_rejected() {
    for count in [1 << 32, u64::MAX] {
        let gguf = GgufBytes { tensor_count: Some(count), ..tiny_gguf("llama") };
        assert_names(&rejection(&gguf), &["the list of tensors"]);
    }
}

#[test]
fn metadata_count_bomb_is_rejected() {
    for count in [1 << 32, u64::MAX] {
        let gguf = GgufBytes { metadata_count: Some(count), ..tiny_gguf("llama") };
        assert_names(&rejection(&gguf), &["the metadata"]);
    }
}

#[test]
fn metadata_array_length_bomb_is_rejected() {
    for kind in (0..=12).filter(|kind| *kind != 9) {
        for length in [1 << 20, 1 << 61, u64::MAX] {
            let gguf = GgufBytes::new().with("tokenizer.ggml.tokens", 9, &array(kind, length, &[0; 16]));
            assert_names(&rejection(&gguf), &["tokenizer.ggml.tokens", "are left"]);
        }
    }
}

#[test]
fn string_length_bomb_is_rejected() {
    for length in [1u64 << 33, u64::MAX] {
        let gguf = GgufBytes::new().with("general.name", 8, &length.to_le_bytes());
        assert_names(&rejection(&gguf), &["general.name"]);
    }
}

#[test]
fn nested_array_bomb_is_rejected() {
    let gguf = GgufBytes::new().with("deep", 9, &array(9, 1, &[]).repeat(100_000));
    assert!(matches!(rejection(&gguf), GgufError::Nesting { .. }));
}

#[test]
fn impossible_metadata_is_rejected() {
    let gguf = GgufBytes::new().with("odd", 13, &[0; 8]);
    assert!(matches!(rejection(&gguf), GgufError::ValueType { found: 13, .. }));
    let gguf = GgufBytes::new().with("odd", 7, &[2]);
    assert!(matches!(rejection(&gguf), GgufError::Boolean { found: 2, .. }));
    let gguf = GgufBytes::new().with("odd", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0x28]);
    assert!(matches!(rejection(&gguf), GgufError::Text { .. }));
    let gguf = GgufBytes::new().with_u32(&"k".repeat(70_000), 1);
    assert!(matches!(rejection(&gguf), GgufError::NameLength { length: 70_000, .. }));
}

#[test]
fn duplicates_are_rejected() {
    let gguf = GgufBytes::new().with_u32("key", 1).with_u32("key", 2);
    assert!(matches!(rejection(&gguf), GgufError::DuplicateKey { .. }));
    let gguf = GgufBytes::new().tensor("a", &[8], 0.0).tensor("a", &[8], 0.0);
    assert!(matches!(rejection(&gguf), GgufError::DuplicateTensor { .. }));
}

#[test]
fn impossible_alignment_is_rejected() {
    for alignment in [0, 3, u32::MAX] {
        let gguf = GgufBytes::new().with_u32("general.alignment", alignment).tensor("a", &[8], 0.0);
        assert!(matches!(rejection(&gguf), GgufError::Alignment { .. }));
    }
    let gguf = GgufBytes::new().with_u32("general.alignment", 1 << 31).tensor("a", &[8], 0.0);
    assert!(matches!(rejection(&gguf), GgufError::OutsideFile { .. }));
    let gguf = GgufBytes::new().with_string("general.alignment", "32");
    assert_names(&rejection(&gguf), &["general.alignment", "text"]);
}

#[test]
fn larger_alignment_is_honoured() {
    let gguf = GgufBytes::new().with_u32("general.alignment", 64).tensor("a", &[32], 5.0);
    let bytes = gguf.build();
    let header = bytes.len() - gguf.data.len();
    let padded = [&bytes[..header], &vec![0; header.next_multiple_of(64) - header], &gguf.data].concat();
    assert_eq!(open(&padded).unwrap().tensor_f32("a").unwrap()[..2], [5.0, 6.0]);
}

#[test]
fn tensor_offset_beyond_file_is_rejected() {
    for offset in [32, 1 << 40, u64::MAX - 31] {
        let mut gguf = GgufBytes::new().describe("late", &[8], F32, offset);
        gguf.data = vec![0; 32];
        assert!(matches!(rejection(&gguf), GgufError::OutsideFile { .. }));
        assert_names(&rejection(&gguf), &["late"]);
    }
}

#[test]
fn unaligned_tensor_is_rejected() {
    let mut gguf = GgufBytes::new().describe("odd", &[4], F32, 4);
    gguf.data = vec![0; 32];
    assert!(matches!(rejection(&gguf), GgufError::Misaligned { offset: 4, alignment: 32, .. }));
}

#[test]
fn overlapping_tensors_are_rejected() {
    let gguf = GgufBytes::new().tensor("a", &[16], 0.0).describe("b", &[8], F32, 32);
    assert!(matches!(rejection(&gguf), GgufError::Overlap { .. }));
    assert_names(&rejection(&gguf), &["`a`", "`b`"]);
}

#[test]
fn dimension_product_overflow_is_rejected() {
    for dimensions in [&[1 << 32, 1 << 32][..], &[u64::MAX], &[1 << 62], &[1 << 16; 4]] {
        let gguf = GgufBytes::new().describe("huge", dimensions, F32, 0);
        assert_names(&rejection(&gguf), &["huge"]);
    }
    for dimensions in [&[][..], &[1; 5]] {
        let gguf = GgufBytes::new().describe("odd", dimensions, F32, 0);
        assert!(matches!(rejection(&gguf), GgufError::Dimensions { .. }));
    }
}

#[test]
fn partial_quantisation_block_is_rejected() {
    let gguf = GgufBytes::new().describe("thin", &[33], 8, 0);
    assert!(matches!(rejection(&gguf), GgufError::PartialBlock { row: 33, block: 32, .. }));
}

#[test]
fn unsupported_tensor_type_is_named() {
    for (kind, name) in [(10, "Q2_K"), (39, "MXFP4"), (4_000_000, "4000000")] {
        let gguf = GgufBytes::new().describe("blk.3.attn_q.weight", &[256], kind, 0);
        assert_names(&rejection(&gguf), &["blk.3.attn_q.weight", name, "Q4_K"]);
    }
}

#[test]
fn other_models_are_rejected() {
    assert_eq!(config_rejection(&tiny_gguf("gpt2")), "general.architecture");
    let experts = tiny_gguf("llama").with_u32("llama.expert_count", 8);
    assert_eq!(config_rejection(&experts), "llama.expert_count");
    let partial = tiny_gguf("llama").with_u32("llama.rope.dimension_count", 2);
    assert_eq!(config_rejection(&partial), "llama.rope.dimension_count");
    let yarn = tiny_gguf("llama").with_string("llama.rope.scaling.type", "yarn");
    assert_eq!(config_rejection(&yarn), "llama.rope.scaling.type");
    for key in ["llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.rope.scaling.attn_factor"] {
        assert_eq!(config_rejection(&tiny_gguf("llama").with_f32(key, 4.0)), key);
        let unscaled = tiny_gguf("llama").with_f32(key, 1.0).build();
        Checkpoint::open(&file("model.gguf", &unscaled).path).unwrap();
    }
    for (tensor, width) in [
        ("blk.0.attn_q.bias", 16),
        ("blk.0.attn_k.bias", 8),
        ("blk.0.attn_v.bias", 8),
        ("blk.0.attn_output.bias", 16),
        ("blk.0.ffn_down.bias", 16),
        ("blk.00.attn_norm.weight", 16),
        ("blk.1.attn_norm.weight", 16),
        ("output.bias", 10),
    ] {
        let more = tiny_gguf("llama").tensor(tensor, &[width], 0.0);
        assert_eq!(config_rejection(&more), tensor);
    }
    let flat = GgufBytes::new().with_string("general.architecture", "llama");
    assert!(matches!(
        Checkpoint::open(&file("model.gguf", &flat.build()).path),
        Err(Error::Gguf { source: GgufError::MissingKey { .. }, .. })
    ));
}
