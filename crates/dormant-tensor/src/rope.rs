//! Rotary position embedding (Su et al. 2021) in the layout of Hugging Face: the first half of a head is rotated
//! with the second (`rotate_half`).

use rayon::prelude::*;

/// Cosines and sines per position: two tables `[positions, head_dim / 2]`.
#[derive(Clone, Debug)]
pub struct RopeTable {
    half: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTable {
    /// Tables for positions `0..positions`, from the frequency (radians per token) of each pair of dimensions.
    pub fn new(frequencies: &[f32], positions: usize) -> Self {
        // The angle is rounded to f32, as in transformers: what the models were trained with.
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (cosines, sines) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self { half: frequencies.len(), cosines, sines }
    }

    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.cosines.len() / self.half.max(1)
    }

    /// Rotates the first `heads` heads of each row of `x` (`[rows, stride]`) by the row's position; `Inverse`
    /// rotates back, which is the gradient of the rotation.
    ///
    /// # Panics
    /// If a position is outside the table.
    pub fn rotate(&self, x: &mut [f32], stride: usize, heads: usize, positions: &[usize], turn: Turn) {
        let (half, head_dim) = (self.half, 2 * self.half);
        x.par_chunks_mut(stride).zip(positions).with_min_len(8).for_each(|(row, &position)| {
            let cosines = &self.cosines[position * half..(position + 1) * half];
            let sines = &self.sines[position * half..(position + 1) * half];
            let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                let (first, second) = head.split_at_mut(half);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                    let sin = sin * sign;
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        });
    }
}

/// Direction of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// By the angle of the position.
    Forward,
    /// Back again.
    Inverse,
}
