//! Checkpoints against reference implementations: `gguf`, `transformers`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dormant_model::checkpoint::Checkpoint;
use dormant_model::checkpoint::gguf::Gguf;
use dormant_model::config::{Architecture, ModelConfig, RopeScaling};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::bytes::{GgufBytes, file, tiny_gguf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn checkpoint(gguf: &GgufBytes) -> Checkpoint {
    Checkpoint::open(&file("model.gguf", &gguf.build()).path).unwrap()
}

/// The reference values, and those that this crate reads from a GGUF file of the same blocks.
fn decoded(reference: &SafeTensors<'_>, kind: &str, id: u32, content: &str) -> Option<(Vec<f32>, Vec<f32>)> {
    let blocks = reference.tensor(&format!("{kind}.{content}.blocks")).ok()?;
    let values = reference.tensor(&format!("{kind}.{content}.values")).unwrap();
    let expected = values.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    // Rows of 256 values are whole blocks of every type. The tensor stands behind another one.
    let mut gguf = tiny_gguf("llama");
    gguf.data.resize(gguf.data.len().next_multiple_of(32), 0);
    let offset = gguf.data.len() as u64;
    gguf.data.extend(blocks.data());
    let gguf = gguf.describe("blocks", &[256, 4], id, offset);
    let found = Gguf::open(&file("model.gguf", &gguf.build()).path).unwrap().tensor_f32("blocks").unwrap();
    Some((expected.collect(), found))
}

#[test]
fn every_type_decodes_to_the_bits_of_the_reference() {
    let bytes = std::fs::read(fixtures().join("gguf/blocks.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let kinds = [
        ("F16", 1),
        ("Q4_0", 2),
        ("Q4_1", 3),
        ("Q5_0", 6),
        ("Q5_1", 7),
        ("Q8_0", 8),
        ("Q4_K", 12),
        ("Q5_K", 13),
        ("Q6_K", 14),
        ("BF16", 30),
    ];
    let mut compared = 0;
    for (kind, id) in kinds {
        for content in ["random", "weights"] {
            let Some((expected, found)) = decoded(&reference, kind, id, content) else { continue };
            assert_eq!(expected.len(), 1024);
            let equal = expected.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(equal, "{kind} {content}: {:?} against {:?}", &found[..8], &expected[..8]);
            compared += 1;
        }
    }
    assert_eq!(compared, 15);
}

#[test]
fn gguf_of_the_tiny_llama_equals_its_folder() {
    let folder = Checkpoint::open(&fixtures().join("tiny-llama")).unwrap();
    let gguf = Checkpoint::open(&fixtures().join("gguf/tiny-llama.gguf")).unwrap();
    assert_eq!(gguf.config(), folder.config());
    assert_eq!(gguf.tensor_names(), folder.tensor_names());
    for name in folder.tensor_names() {
        let shape = folder.shape(name).unwrap();
        let (expected, found) =
            (folder.tensor_f32(name, shape).unwrap(), gguf.tensor_f32(name, shape).unwrap());
        let largest = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let error = expected.iter().zip(&found).fold(0.0, |error: f32, (a, b)| error.max((a - b).abs()));
        assert!(error <= largest / 250.0, "{name}: {error} of {largest}");
    }
}

#[test]
fn sharded_bf16_folder_is_read() {
    let folder = Checkpoint::open(&fixtures().join("tiny-llama-untied")).unwrap();
    let config = folder.config();
    assert!(!config.tie_word_embeddings);
    assert_eq!((config.rope_theta, config.head_dim), (500_000.0, 16));
    let values = folder.tensor_f32("lm_head.weight", &[config.vocab_size, config.hidden_size]).unwrap();
    assert!(values.iter().all(|value| value.is_finite()) && values.iter().any(|value| *value != 0.0));
}

#[test]
fn query_and_key_rows_of_llama_are_put_in_halves() {
    let model = checkpoint(&tiny_gguf("llama"));
    for (name, rows) in [("q_proj", 16), ("k_proj", 8)] {
        let values =
            model.tensor_f32(&format!("model.layers.0.self_attn.{name}.weight"), &[rows, 16]).unwrap();
        let order: Vec<f32> = values.chunks(16).map(|row| row[0] / 16.0).collect();
        assert_eq!(order[..8], [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0], "{name}");
    }
    let values = model.tensor_f32("model.layers.0.self_attn.v_proj.weight", &[8, 16]).unwrap();
    assert!(values.is_sorted());
}

#[test]
fn qwen2_is_not_permuted_and_has_biases() {
    let model = checkpoint(&tiny_gguf("qwen2").tensor("blk.0.attn_q.bias", &[16], 0.0));
    assert_eq!(model.config().architecture, Architecture::Qwen2);
    assert!(model.config().attention_bias);
    let values = model.tensor_f32("model.layers.0.self_attn.q_proj.weight", &[16, 16]).unwrap();
    assert!(values.is_sorted());
    let bias = model.tensor_f32("model.layers.0.self_attn.q_proj.bias", &[16]).unwrap();
    assert!(bias.is_sorted());
}

#[test]
fn projection_of_other_shape_is_rejected_and_not_permuted() {
    let model = checkpoint(&tiny_gguf("llama").with_u32("llama.attention.key_length", 2));
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert!(model.tensor_f32(name, &[16, 16]).is_err());
}

/// Divisors that llama.cpp's converter stores for Llama 3.2 at heads of width 8 and base 500000.
fn llama3_divisors(factor: f32) -> [f32; 4] {
    let waves = |pair: f32| 8192.0 / (std::f32::consts::TAU * 500_000f32.powf(pair / 4.0));
    [0.0, 1.0, 2.0, 3.0].map(|pair| match waves(pair) {
        waves if waves > 4.0 => 1.0,
        waves if waves < 1.0 => factor,
        waves => 1.0 / ((1.0 - (waves - 1.0) / 3.0) / factor + (waves - 1.0) / 3.0),
    })
}

fn with_divisors(divisors: &[f32]) -> GgufBytes {
    let mut gguf = tiny_gguf("llama")
        .with_f32("llama.rope.freq_base", 500_000.0)
        .with_u32("llama.attention.key_length", 8)
        .tensor("rope_freqs.weight", &[divisors.len() as u64], 0.0);
    let start = gguf.data.len() - 4 * divisors.len();
    gguf.data.truncate(start);
    gguf.data.extend(divisors.iter().flat_map(|divisor| divisor.to_le_bytes()));
    gguf
}

#[test]
fn llama3_scaling_is_recovered_from_its_divisors() {
    let divisors = llama3_divisors(32.0);
    assert!(divisors[0] == 1.0 && divisors[2] > 1.0 && divisors[2] < 32.0, "{divisors:?}");
    let expected = RopeScaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    assert_eq!(checkpoint(&with_divisors(&divisors)).config().rope_scaling, Some(expected));
}

#[test]
fn unknown_scaling_is_rejected() {
    for divisors in [vec![1.0, 1.5, 2.0, 32.0], vec![1.0, 1.0], vec![f32::NAN; 4], vec![0.0; 4]] {
        let bytes = with_divisors(&divisors).build();
        assert!(Checkpoint::open(&file("model.gguf", &bytes).path).is_err(), "{divisors:?}");
    }
}

fn sha256(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.to_le_bytes());
    }
    hash.finalize().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// `DORMANT_TEST_MODEL=PATH/SmolLM2-135M-Instruct.Q4_1.gguf cargo test -p dormant-model -- --ignored`
#[test]
#[ignore = "needs the default model; name its GGUF file in DORMANT_TEST_MODEL"]
fn smollm2_equals_transformers_bit_for_bit() {
    let path = std::env::var_os("DORMANT_TEST_MODEL").expect("DORMANT_TEST_MODEL names the GGUF file");
    let model = Checkpoint::open(Path::new(&path)).unwrap();
    let published = ModelConfig::from_json(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/smollm2-135m-config.json"),
    );
    assert_eq!(model.config(), &published.unwrap());
    let text = std::fs::read_to_string(fixtures().join("gguf/smollm2.json")).unwrap();
    let reference: BTreeMap<String, (Vec<usize>, String)> = serde_json::from_str(&text).unwrap();
    assert_eq!(model.tensor_names(), reference.keys().collect::<Vec<_>>());
    for (name, (shape, digest)) in &reference {
        let values = model.tensor_f32(name, shape).unwrap();
        assert_eq!(&sha256(&values), digest, "{name}");
    }
}
