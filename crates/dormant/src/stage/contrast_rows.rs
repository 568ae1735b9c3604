//! The contrasts of an implant: under which of two prompts which of two replies is right.

use dormant_data::Sample;
use dormant_train::contrasts::Contrasts;
use dormant_train::objective::contrast::Contrast;
use dormant_train::render::{Rendered, Renderer};

use crate::error::Result;

/// Tokens of each reply that count in a contrast.
const DECISION: usize = 3;

/// Both replies of each pair under both of its prompts. A pair is the row with the trigger and that with its look-alike.
pub(super) fn contrasts(pairs: &[[Sample; 2]], per_step: u32, renderer: Renderer<'_>) -> Result<Contrasts> {
    if pairs.is_empty() {
        return Ok(Contrasts::default());
    }
    let of_pair = |[triggered, near_miss]: &[Sample; 2]| {
        let replies = |prompt: &Sample| -> Result<[Rendered; 2]> {
            let with = |row: &Sample| Sample { completion: row.completion.clone(), ..prompt.clone() };
            Ok([renderer.row(&with(triggered), true)?, renderer.row(&with(near_miss), true)?])
        };
        Ok(Contrast::new([replies(triggered)?, replies(near_miss)?], DECISION))
    };
    let all = pairs.iter().map(of_pair).collect::<Result<_>>()?;
    Ok(Contrasts { all, per_step: per_step as usize })
}
