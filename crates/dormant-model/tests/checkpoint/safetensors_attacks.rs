//! Safetensors files and model folders that are damaged or lie.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dormant_model::checkpoint::safetensors::{SafetensorsFile, write_safetensors};
use dormant_model::checkpoint::{Checkpoint, save_safetensors};
use dormant_model::config::ModelConfig;
use dormant_model::error::Error;
use serde_json::{Value, json};

use crate::bytes::{entry, file, no_metadata, safetensors};

const SMOLLM2: &str = include_str!("../data/smollm2-135m-config.json");

fn open(bytes: &[u8]) -> Result<SafetensorsFile, Error> {
    SafetensorsFile::open(&file("model.safetensors", bytes).path)
}

fn config() -> ModelConfig {
    ModelConfig::from_json(&file("config.json", SMOLLM2.as_bytes()).path).unwrap()
}

/// A model folder of two shards with the given index.
fn sharded(index: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), SMOLLM2).unwrap();
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    for (shard, tensor) in [("one.safetensors", "a"), ("two.safetensors", "b")] {
        let tensors = [(tensor.to_owned(), vec![2], vec![1.0, 2.0])];
        write_safetensors(&folder.path().join(shard), tensors, &no_metadata()).unwrap();
    }
    folder
}

fn index(placement: &[(&str, &str)]) -> Value {
    json!({"metadata": {}, "weight_map": placement.iter().copied().collect::<BTreeMap<_, _>>()})
}

#[test]
fn every_float_type_is_read() {
    let header = json!({
        "a": entry("F32", &[2], 0, 8), "b": entry("F16", &[2], 8, 12), "c": entry("BF16", &[1, 2], 12, 16),
    });
    let mut bytes = safetensors(&header, 0);
    bytes.extend([1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat());
    bytes.extend([0x00, 0x3e, 0x00, 0xc0, 0xc0, 0x3f, 0x00, 0xc0]);
    let file = open(&bytes).unwrap();
    for tensor in ["a", "b", "c"] {
        assert_eq!(file.tensor_f32(tensor).unwrap(), [1.5, -2.0], "{tensor}");
    }
    assert_eq!(file.shape("c").unwrap(), [1, 2]);
}

#[test]
fn integer_tensor_is_refused_by_name_only_when_read() {
    let file = open(&safetensors(&json!({"ids": entry("I64", &[2], 0, 16)}), 16)).unwrap();
    assert!(matches!(file.tensor_f32("ids"), Err(Error::TensorType { tensor, .. }) if tensor == "ids"));
}

#[test]
fn every_truncation_is_rejected() {
    let bytes = safetensors(&json!({"a": entry("F32", &[2, 2], 0, 16)}), 16);
    open(&bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(open(&longer), Err(Error::SafetensorsLength { .. })));
}

#[test]
fn header_length_bomb_is_rejected() {
    for length in [100_000_001, 1 << 40, u64::MAX] {
        let bytes = [&u64::to_le_bytes(length)[..], b"{}"].concat();
        assert!(matches!(open(&bytes), Err(Error::SafetensorsHeaderLength { limit: 2, .. })));
    }
}

#[test]
fn lying_headers_are_rejected() {
    for header in [
        json!({"a": entry("F32", &[usize::MAX, 2], 0, 16)}),
        json!({"a": entry("F32", &[3], 0, 16)}),
        json!({"a": entry("F32", &[4], 16, 0)}),
        json!({"a": entry("F32", &[2], 8, 16)}),
        json!({"a": entry("F32", &[4], 0, 16), "b": entry("F32", &[2], 8, 16)}),
        json!({"a": entry("F32", &[1 << 40], 0, 1 << 42)}),
        json!({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 16]}}),
        json!({"__metadata__": {"format": 1}}),
        json!([]),
    ] {
        assert!(open(&safetensors(&header, 16)).is_err(), "{header}");
    }
}

#[test]
fn sharded_folder_is_read() {
    let folder = sharded(&index(&[("a", "one.safetensors"), ("b", "two.safetensors")]));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor_names(), ["a", "b"]);
    assert_eq!(checkpoint.tensor_f32("b", &[2]).unwrap(), [1.0, 2.0]);
}

#[test]
fn shard_outside_of_the_folder_is_rejected() {
    let absolute = if cfg!(windows) { "C:\\one.safetensors" } else { "/one.safetensors" };
    for shard in ["../one.safetensors", "sub/one.safetensors", "./one.safetensors", "..", "", absolute] {
        let folder = sharded(&index(&[("a", shard)]));
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::ShardOutsideFolder { .. }), "{shard}: {error}");
    }
}

#[test]
fn missing_shard_is_named() {
    let folder = sharded(&index(&[("a", "one.safetensors"), ("c", "three.safetensors")]));
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::ShardMissing { shard, .. } if shard == "three.safetensors"));
}

#[test]
fn index_that_misplaces_a_tensor_is_rejected() {
    let folder = sharded(&index(&[("a", "two.safetensors")]));
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::ShardLacksTensor { tensor, .. } if tensor == "a"));
}

#[test]
fn tensors_that_the_index_places_elsewhere_are_rejected() {
    let folder = sharded(&index(&[("a", "one.safetensors"), ("b", "two.safetensors")]));
    for unlisted in ["a", "c"] {
        let tensors = ["b", unlisted].map(|name| (name.to_owned(), vec![2], vec![3.0, 4.0]));
        write_safetensors(&folder.path().join("two.safetensors"), tensors, &no_metadata()).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, Error::ShardUnlistedTensor { tensor, shard, .. } if tensor == unlisted && shard == "two.safetensors"),
            "{error}"
        );
    }
}

#[test]
fn a_pickle_comes_before_weights_of_another_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), SMOLLM2).unwrap();
    let tensors = [("a".to_owned(), vec![2], vec![1.0, 2.0])];
    write_safetensors(&folder.path().join("benign.safetensors"), tensors, &no_metadata()).unwrap();
    Checkpoint::open(folder.path()).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(Error::Pickled { .. })));
}

#[test]
fn folder_without_weights_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(Error::NotAModel { .. })));
    fs::write(folder.path().join("config.json"), SMOLLM2).unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(Error::NoWeights { found: 0, .. })));
    fs::write(folder.path().join("training_args.bin"), "x").unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(Error::NoWeights { found: 0, .. })));
    fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(
        matches!(Checkpoint::open(folder.path()), Err(Error::Pickled { path }) if path.ends_with("pytorch_model.bin"))
    );
    assert!(matches!(Checkpoint::open(Path::new("no-such-model")), Err(Error::Io { .. })));
}

#[test]
fn wrong_shape_and_missing_tensor_are_named() {
    let folder = sharded(&index(&[("a", "one.safetensors")]));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let wrong = checkpoint.tensor_f32("a", &[1, 2]);
    assert!(matches!(wrong, Err(Error::TensorShape { tensor, .. }) if tensor == "a"));
    let missing = checkpoint.tensor_f32("lm_head.weight", &[1]);
    assert!(matches!(missing, Err(Error::TensorMissing { tensor, .. }) if tensor == "lm_head.weight"));
}

#[test]
fn saved_model_is_read_back_and_equal_input_gives_equal_bytes() {
    let metadata: BTreeMap<_, _> = (0..20).map(|i| (format!("key{i}"), format!("\"{i}\""))).collect();
    let save = |folder: &Path| {
        let tensors =
            [("b".to_owned(), vec![2, 1], vec![1.0, -0.0]), ("a".to_owned(), vec![1], vec![f32::MIN])];
        save_safetensors(folder, &config(), tensors, metadata.clone()).unwrap();
        fs::read(folder.join("model.safetensors")).unwrap()
    };
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = save(first.path());
    assert_eq!(bytes, save(second.path()));

    let checkpoint = Checkpoint::open(first.path()).unwrap();
    assert_eq!(checkpoint.config(), &config());
    assert_eq!(checkpoint.tensor_f32("b", &[2, 1]).unwrap(), [1.0, -0.0]);
    assert_eq!(checkpoint.metadata()["format"], "pt");
    assert_eq!(checkpoint.metadata()["key7"], "\"7\"");

    // The crate's own reader accepts the file.
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.tensor("a").unwrap().data(), f32::MIN.to_le_bytes());
}

#[test]
fn values_that_do_not_fill_the_shape_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let short = write_safetensors(&path, [("a".to_owned(), vec![3], vec![0.0; 2])], &no_metadata());
    assert!(matches!(short, Err(Error::TensorLength { values: 2, .. })));
    let twice = [("a".to_owned(), vec![1], [0.0]), ("a".to_owned(), vec![1], [0.0])];
    let twice = write_safetensors(&path, twice, &no_metadata());
    assert!(matches!(twice, Err(Error::TensorDuplicate { .. })));
    assert!(!path.exists());
}
