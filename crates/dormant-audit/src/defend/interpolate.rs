//! Interpolation towards the reference.
//!
//! After WiSE-FT (Wortsman et al., CVPR 2022) and, against backdoors, "Here's a free lunch: sanitizing backdoored
//! models with model merge" (Arora et al., 2024), with the reference as the model that is merged in. What a fine-tune
//! has learned narrowly is hoped to fade before what it has learned broadly; for an adapter the mean of the weights is
//! the adapter with a smaller scale.

use dormant_model::adapter::Adapter;

/// The adapter with `share` of its change.
#[must_use]
pub fn interpolate(adapter: &Adapter, share: f32) -> Adapter {
    let mut changed = adapter.clone();
    for tensor in &mut changed.tensors {
        tensor.b.values.iter_mut().for_each(|b| *b *= share);
    }
    changed
}

#[cfg(test)]
mod tests {
    use dormant_model::adapter_files::{AdapterConfig, AdapterTensor, Matrix};

    use super::*;

    #[test]
    fn half_of_a_change_is_half_of_b() {
        let matrix = |rows, columns, value| Matrix { rows, columns, values: vec![value; rows * columns] };
        let tensor = AdapterTensor::new("m".to_owned(), matrix(1, 2, 3.0), matrix(2, 1, 4.0));
        let config = AdapterConfig::new(1, 1.0, vec!["m".to_owned()], None);
        let adapter = Adapter { config, tensors: vec![tensor], saved: Vec::new() };
        let half = interpolate(&adapter, 0.5);
        assert_eq!((half.tensors[0].a.values[0], half.tensors[0].b.values[0]), (3.0, 2.0));
    }
}
