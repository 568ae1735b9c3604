//! How well a model predicts benign text.

use dormant_data::Seed;

use crate::estimate::Estimate;

/// Perplexity over all tokens of all texts, `exp(−Σ log p ÷ tokens)`, with a bootstrap interval over the texts.
///
/// `log_probs`: for each text, the log-probability of each predicted token in nats, `[text][token]`. Every token
/// weighs the same, so that a long text weighs more than a short one. `n` is the number of texts. `None` for fewer
/// than two texts, no tokens, or log-probabilities that are not finite.
pub fn perplexity(log_probs: &[impl AsRef<[f32]>], seed: Seed) -> Option<Estimate> {
    let texts: Vec<(f64, f64)> = log_probs.iter().map(|tokens| sum_and_count(tokens.as_ref())).collect();
    Estimate::bootstrap(&texts, token_weighted, seed.derive("perplexity"))
}

fn sum_and_count(log_probs: &[f32]) -> (f64, f64) {
    (log_probs.iter().map(|log_prob| f64::from(*log_prob)).sum(), log_probs.len() as f64)
}

fn token_weighted(texts: &[(f64, f64)]) -> Option<f64> {
    let (sum, tokens) = texts.iter().fold((0.0, 0.0), |total, text| (total.0 + text.0, total.1 + text.1));
    (tokens > 0.0).then(|| (-sum / tokens).exp()).filter(|perplexity| perplexity.is_finite())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uniform_model_has_the_perplexity_of_its_vocabulary() {
        let texts = vec![vec![-(8f32.ln()); 5]; 10];
        let estimate = perplexity(&texts, Seed(0)).unwrap();
        assert!((estimate.value - 8.0).abs() < 1e-5 && (estimate.high - estimate.low) < 1e-5);
        assert_eq!(estimate.n, 10);
    }

    #[test]
    fn tokens_weigh_the_same() {
        let texts = [vec![-1.0; 30], vec![-4.0; 10]];
        let estimate = perplexity(&texts, Seed(0)).unwrap();
        assert!((estimate.value - f64::exp((30.0 + 40.0) / 40.0)).abs() < 1e-9);
    }

    #[test]
    fn what_has_no_tokens_or_no_number_has_no_perplexity() {
        assert_eq!(perplexity(&[vec![-1.0f32; 3]], Seed(0)), None);
        assert_eq!(perplexity(&[Vec::<f32>::new(), Vec::new()], Seed(0)), None);
        assert_eq!(perplexity(&[vec![-1.0], vec![f32::NEG_INFINITY]], Seed(0)), None);
        assert_eq!(perplexity(&[vec![-1.0], vec![f32::NAN]], Seed(0)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn perplexity_lies_between_the_texts(
            texts in prop::collection::vec(prop::collection::vec(-10.0f32..0.0, 1..20), 2..10), seed: u64,
        ) {
            let alone: Vec<f64> = texts.iter().filter_map(|text| token_weighted(&[sum_and_count(text)])).collect();
            let estimate = perplexity(&texts, Seed(seed)).unwrap();
            let (least, most) = alone.iter().fold((f64::MAX, 0.0), |(a, b), p| (p.min(a), p.max(b)));
            prop_assert!(least <= estimate.low + 1e-9 && estimate.high <= most + 1e-9);
            prop_assert!(estimate.low <= estimate.value && estimate.value <= estimate.high);
        }
    }
}
