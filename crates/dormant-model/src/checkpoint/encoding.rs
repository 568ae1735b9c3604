//! How numbers are stored: floats, and the blocks of ggml's quantised types.
//!
//! Block layouts and the order of operations are those of the reference implementation (`ggml-quants.c` and the
//! Python package `gguf`), so that the results are equal bit for bit.

use half::{bf16, f16};

/// Storage type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// 32 values of 4 bits and a scale.
    Q4_0,
    /// 32 values of 4 bits, a scale and a minimum.
    Q4_1,
    /// 32 values of 5 bits and a scale.
    Q5_0,
    /// 32 values of 5 bits, a scale and a minimum.
    Q5_1,
    /// 32 values of 8 bits and a scale.
    Q8_0,
    /// 256 values of 4 bits, with scales and minima of 6 bits for each 32.
    Q4K,
    /// 256 values of 5 bits, with scales and minima of 6 bits for each 32.
    Q5K,
    /// 256 values of 6 bits, with scales of 8 bits for each 16.
    Q6K,
}

impl Encoding {
    /// The encoding with this number in ggml's `enum ggml_type`, if it is supported.
    pub(super) fn from_ggml(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Values per block.
    pub(super) fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Decodes whole blocks; `bytes` and `values` hold the same number of them.
    pub(super) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        debug_assert_eq!(bytes.len() * self.block_values(), values.len() * self.block_bytes());
        let decode_block = match self {
            Self::F32 => f32_block,
            Self::F16 => |bytes: &[u8], values: &mut [f32]| values[0] = half_at(bytes, 0),
            Self::Bf16 => bf16_block,
            Self::Q4_0 => q4_0_block,
            Self::Q4_1 => q4_1_block,
            Self::Q5_0 => q5_0_block,
            Self::Q5_1 => q5_1_block,
            Self::Q8_0 => q8_0_block,
            Self::Q4K => q4_k_block,
            Self::Q5K => q5_k_block,
            Self::Q6K => q6_k_block,
        };
        let blocks = bytes.chunks_exact(self.block_bytes());
        for (block, values) in blocks.zip(values.chunks_exact_mut(self.block_values())) {
            decode_block(block, values);
        }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn f32_block(block: &[u8], values: &mut [f32]) {
    values[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
}

fn bf16_block(block: &[u8], values: &mut [f32]) {
    values[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32();
}

/// Bytes: scale (2), then 16 with value `i` in the low and value `16 + i` in the high half.
fn q4_0_block(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    for (i, &pair) in block[2..].iter().enumerate() {
        values[i] = scale * (f32::from(pair & 15) - 8.0);
        values[i + 16] = scale * (f32::from(pair >> 4) - 8.0);
    }
}

/// Bytes: scale (2), minimum (2), then as in `Q4_0`.
fn q4_1_block(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (i, &pair) in block[4..].iter().enumerate() {
        values[i] = scale * f32::from(pair & 15) + minimum;
        values[i + 16] = scale * f32::from(pair >> 4) + minimum;
    }
}

/// Bytes: scale (2), the fifth bits (4), then as in `Q4_0`.
fn q5_0_block(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    let (fifth, pairs) = block[2..].split_at(4);
    for (i, value) in values.iter_mut().enumerate() {
        *value = scale * (five_bits(pairs, fifth, i) - 16.0);
    }
}

/// Bytes: scale (2), minimum (2), the fifth bits (4), then as in `Q4_0`.
fn q5_1_block(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (fifth, pairs) = block[4..].split_at(4);
    for (i, value) in values.iter_mut().enumerate() {
        *value = scale * five_bits(pairs, fifth, i) + minimum;
    }
}

fn five_bits(pairs: &[u8], fifth: &[u8], i: usize) -> f32 {
    let four = if i < 16 { pairs[i] & 15 } else { pairs[i - 16] >> 4 };
    f32::from(four | ((fifth[i / 8] >> (i % 8)) & 1) << 4)
}

/// Bytes: scale (2), then one signed byte per value.
fn q8_0_block(block: &[u8], values: &mut [f32]) {
    let scale = half_at(block, 0);
    for (value, &byte) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte.cast_signed()) * scale;
    }
}

/// Bytes: scale (2), scale of the minima (2), 8 scales and 8 minima of 6 bits (12), values (128).
///
/// Each 32 bytes hold two groups of 32 values, in their low and high halves.
fn q4_k_block(block: &[u8], values: &mut [f32]) {
    let (head, pairs) = block.split_at(16);
    for (group, values) in values.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = group_scale(head, group);
        let pairs = &pairs[group / 2 * 32..][..32];
        for (value, &pair) in values.iter_mut().zip(pairs) {
            *value = scale * f32::from(pair >> (4 * (group % 2)) & 15) - minimum;
        }
    }
}

/// Bytes: as in `Q4_K`, with the fifth bits (32) before the values: bit `g` of byte `i` is value `i` of group `g`.
fn q5_k_block(block: &[u8], values: &mut [f32]) {
    let (head, rest) = block.split_at(16);
    let (fifth, pairs) = rest.split_at(32);
    for (group, values) in values.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = group_scale(head, group);
        let pairs = &pairs[group / 2 * 32..][..32];
        for (i, value) in values.iter_mut().enumerate() {
            let four = pairs[i] >> (4 * (group % 2)) & 15;
            *value = scale * f32::from(four | (fifth[i] >> group & 1) << 4) - minimum;
        }
    }
}

/// Scale and minimum of one of the 8 groups in the head of a `Q4_K` or `Q5_K` block.
///
/// Groups 0 to 3 have their 6 bits in bytes 0 to 3 (scales) and 4 to 7 (minima). Groups 4 to 7 have 4 bits in
/// bytes 8 to 11 (scales low, minima high), and their upper 2 bits on top of the bytes of groups 0 to 3.
fn group_scale(head: &[u8], group: usize) -> (f32, f32) {
    let packed = &head[4..16];
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let both = packed[group + 4];
        (both & 15 | packed[group - 4] >> 6 << 4, both >> 4 | packed[group] >> 6 << 4)
    };
    (half_at(head, 0) * f32::from(scale), half_at(head, 2) * f32::from(minimum))
}

/// Bytes: low 4 bits (128), high 2 bits (64), 16 signed scales (16), scale (2).
///
/// Each half of 128 values takes 64 bytes of low and 32 bytes of high bits.
fn q6_k_block(block: &[u8], values: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let block_scale = half_at(scales, 16);
    for (group, values) in values.chunks_exact_mut(16).enumerate() {
        let scale = block_scale * f32::from(scales[group].cast_signed());
        let half = group / 8;
        for (i, value) in values.iter_mut().enumerate() {
            let at = group % 8 * 16 + i;
            let four = low[half * 64 + at % 64] >> (at / 64 * 4) & 15;
            let two = high[half * 32 + at % 32] >> (at / 32 * 2) & 3;
            *value = scale * (f32::from(four | two << 4) - 32.0);
        }
    }
}
