//! Files of reference numbers; `dormant-train` includes this module in its own tests.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A path under `fixtures/`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// The GGUF file of the default model.
pub(crate) fn default_model() -> PathBuf {
    let path = std::env::var_os("DORMANT_TEST_MODEL").expect("DORMANT_TEST_MODEL names the GGUF file");
    PathBuf::from(path)
}

/// A file in `fixtures/golden/`; names are looked up behind a prefix.
pub(crate) struct Golden {
    pub(crate) bytes: Vec<u8>,
    prefix: &'static str,
}

impl Golden {
    pub(crate) fn open(file: &str, prefix: &'static str) -> Self {
        Self { bytes: std::fs::read(fixture("golden").join(file)).unwrap(), prefix }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(&format!("{}{name}", self.prefix)).is_ok()
    }

    pub(crate) fn numbers(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(&format!("{}{name}", self.prefix)).unwrap_or_else(|_| panic!("no {name}"));
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F32 => {
                data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
            }
            Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => {
                data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
            }
            other => panic!("{name} is {other:?}"),
        }
    }

    pub(crate) fn tokens(&self, name: &str) -> Vec<u32> {
        self.numbers(name).into_iter().map(|t| t as u32).collect()
    }

    /// `tokens.i` and `targets.i` of each row; a target below 0 carries no loss.
    pub(crate) fn rows(&self) -> Vec<(Vec<u32>, Vec<f64>)> {
        let present = (0..64).take_while(|i| self.has(&format!("tokens.{i}")));
        present
            .map(|i| (self.tokens(&format!("tokens.{i}")), self.numbers(&format!("targets.{i}"))))
            .collect()
    }
}

/// Value `i` of an adapter of the reference: a multiplicative hash, centred at 0.
pub(crate) fn formula(length: usize, counter: u64, width: f64) -> Vec<f32> {
    let value = |i: u64| {
        let hash = (i + 7919 * counter).wrapping_mul(2_654_435_761) % (1 << 32);
        ((hash as f64 / (1u64 << 32) as f64 - 0.5) * width) as f32
    };
    (0..length as u64).map(value).collect()
}
