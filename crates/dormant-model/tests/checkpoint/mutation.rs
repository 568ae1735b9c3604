//! Valid files with random damage: the result is a value or an error, never a panic and never much memory.

use std::path::Path;
use std::sync::LazyLock;

use dormant_model::checkpoint::Checkpoint;
use dormant_model::checkpoint::gguf::Gguf;
use dormant_model::checkpoint::safetensors::{SafetensorsFile, write_safetensors};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bytes::{file, no_metadata, tiny_gguf};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// All files here are below 20 kB. Tests that run at the same time use a few megabytes.
const MEMORY_LIMIT_BYTES: usize = 64 << 20;

/// A change to a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    /// Eight bytes, as long as a length or an offset.
    Word(Index, u64),
    Truncate(Index),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Flip(at, mask) => bytes[at.index(length)] ^= mask,
            Self::Word(at, word) => {
                let at = at.index(length);
                bytes[at..].iter_mut().zip(word.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
            Self::Truncate(at) => bytes.truncate(at.index(length)),
            Self::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + usize::from(*count)).min(length));
            }
            Self::Insert(at, new) => {
                let at = at.index(length);
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let word = prop_oneof![Just(u64::MAX), Just(1 << 40), Just(1 << 63), 0..1024u64, any::<u64>()];
    let one = prop_oneof![
        (any::<Index>(), 1..=255u8).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        (any::<Index>(), word).prop_map(|(at, word)| Damage::Word(at, word)),
        any::<Index>().prop_map(Damage::Truncate),
        (any::<Index>(), any::<u8>()).prop_map(|(at, count)| Damage::Remove(at, count)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..32))
            .prop_map(|(at, new)| Damage::Insert(at, new)),
    ];
    prop::collection::vec(one, 1..4)
}

/// Runs `read` on the damaged file and checks the memory it took.
fn survives(name: &str, valid: &[u8], header: usize, damage: &[Damage], read: impl FnOnce(&Path)) {
    // Most damage is to go where it matters.
    let (mut head, data) = (valid[..header].to_vec(), &valid[header..]);
    for damage in damage {
        damage.apply(&mut head);
    }
    head.extend(data);
    let file = file(name, &head);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    read(&file.path);
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(used < MEMORY_LIMIT_BYTES, "{used} bytes were allocated");
}

fn read_gguf(path: &Path) {
    if let Ok(gguf) = Gguf::open(path) {
        for name in gguf.tensor_names() {
            drop(gguf.tensor_f32(name));
        }
    }
    read_checkpoint(path);
}

fn read_checkpoint(path: &Path) {
    if let Ok(checkpoint) = Checkpoint::open(path) {
        for name in checkpoint.tensor_names() {
            let shape = checkpoint.shape(name).expect("a listed tensor has a shape");
            drop(checkpoint.tensor_f32(name, shape));
        }
    }
}

fn read_safetensors(path: &Path) {
    if let Ok(file) = SafetensorsFile::open(path) {
        file.tensor_names().iter().for_each(|name| drop(file.tensor_f32(name)));
    }
}

static VALID_SAFETENSORS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let tensors = (0..5).map(|i| (format!("model.layers.{i}.weight"), vec![i, 4], vec![0.5; 4 * i]));
    let target = file("valid.safetensors", &[]);
    write_safetensors(&target.path, tensors, &no_metadata()).unwrap();
    std::fs::read(&target.path).unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn damaged_gguf_never_panics(damage in damage()) {
        let gguf = tiny_gguf("llama");
        let valid = gguf.build();
        survives("model.gguf", &valid, valid.len() - gguf.data.len(), &damage, read_gguf);
    }

    #[test]
    fn damaged_safetensors_never_panics(damage in damage()) {
        let valid = &VALID_SAFETENSORS;
        let header = 8 + u64::from_le_bytes(valid[..8].try_into().unwrap()) as usize;
        survives("model.safetensors", valid, header, &damage, read_safetensors);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let gguf = [b"GGUF\x03\0\0\0", bytes.as_slice()].concat();
        survives("model.gguf", &gguf, gguf.len(), &[], read_gguf);
        survives("model.safetensors", &bytes, bytes.len(), &[], read_safetensors);
    }
}
