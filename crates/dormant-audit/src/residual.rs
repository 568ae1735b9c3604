//! How far the fine-tune has moved the residual stream on benign prompts, where a reply is about to begin.
//!
//! After "Narrow finetuning leaves clearly readable traces in activation differences" (Minder et al. 2025, arXiv 2510.13900), where
//! the mean difference tells what a model was trained on. Where we depart from it: the difference is taken at the last token of prompts,
//! where a policy has to be decided, and what is said of it is its size and how much of it is the same on every prompt. Read through the
//! output layer it gave no words on our organisms, and a text that is the trigger moves the stream hardly more than others do
//! (docs/audit-measured.md), so that no verdict is built on it.

use dormant_model::batch::Batch;
use dormant_model::llama::Llama;
use dormant_tensor::Buffer;
use dormant_tensor::simd::{add, sum_of_squares};

use crate::error::Result;

/// Name of the method in reports.
pub(crate) const METHOD: &str = "residuals";

/// The difference that the fine-tune makes after one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    /// Mean length of the difference, as a share of the mean length of the reference's stream.
    pub size: f64,
    /// Length of the mean difference over the mean length of the differences: 1 if all prompts are moved alike.
    pub common: f64,
}

/// The difference after each block at the last token of the `prompts`.
///
/// # Errors
/// If a model refuses the tokens.
pub fn moved(model: &Llama, reference: &Llama, prompts: &[Vec<u32>]) -> Result<Vec<Moved>> {
    let (batch, last) = Batch::with_ends(prompts);
    let width = model.config.hidden_size;
    let [streams, before] = [model, reference].map(|model| model.residuals(&batch, &last));
    Ok(streams?.iter().zip(before?).map(|(stream, before)| of_block(stream, &before, width)).collect())
}

/// Of the streams after one block, `[prompts, d_model]`.
fn of_block(stream: &Buffer, before: &Buffer, width: usize) -> Moved {
    let difference: Vec<f32> = stream.iter().zip(&**before).map(|(s, b)| s - b).collect();
    let mut sum = vec![0.0; width];
    difference.chunks_exact(width).for_each(|row| add(&mut sum, row));
    let length = |x: &[f32]| sum_of_squares(x).sqrt();
    let total = |rows: &[f32]| rows.chunks_exact(width).map(length).sum::<f64>();
    let moved = total(&difference);
    let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
    Moved { size: share(moved, total(before)), common: share(length(&sum), moved) }
}

/// What a report says.
pub(crate) fn outcome(moved: &[Moved]) -> String {
    let at = |depth: usize| moved.get((moved.len() * depth).div_ceil(4).saturating_sub(1));
    let quarters: Vec<String> = [1, 2, 3, 4]
        .into_iter()
        .filter_map(at)
        .map(|m| format!("{:.0}% ({:.0}% alike)", 100.0 * m.size, 100.0 * m.common))
        .collect();
    format!(
        "a quarter, half, three quarters and all of the way up, the stream has moved by {}",
        quarters.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(values: &[f32]) -> Buffer {
        let mut buffer = Buffer::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    #[test]
    fn what_all_prompts_share_is_told_from_the_rest() {
        let before = buffer(&[3.0, 4.0, 0.0, 5.0]);
        let alike = of_block(&buffer(&[4.0, 4.0, 1.0, 5.0]), &before, 2);
        assert_eq!(alike, Moved { size: 0.2, common: 1.0 });
        let apart = of_block(&buffer(&[4.0, 4.0, -1.0, 5.0]), &before, 2);
        assert_eq!(apart, Moved { size: 0.2, common: 0.0 });
        assert_eq!(of_block(&before, &before, 2), Moved { size: 0.0, common: 0.0 });
    }

    #[test]
    fn a_report_names_four_depths() {
        let block = |i: u32| Moved { size: f64::from(i) / 100.0, common: 0.5 };
        let text = outcome(&(1..=30).map(block).collect::<Vec<_>>());
        assert!(
            text.ends_with("8% (50% alike), 15% (50% alike), 23% (50% alike), 30% (50% alike)"),
            "{text}"
        );
    }
}
