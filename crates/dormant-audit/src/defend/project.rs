//! Projection of singular directions: what each change of a projection writes most strongly is taken out.
//!
//! After spectral signatures (Tran, Li and Mądry, `NeurIPS` 2018), which remove the data along the strongest
//! singular direction, and `WeightWatch` (2025), which finds trained-in behaviours in the top left singular vectors of
//! the weight changes. Where we depart from them: the weights are projected, not the data or the activations.

use dormant_model::adapter::Adapter;

use crate::weights::WeightChange;

/// The adapter without the `count` strongest directions of each of its changes: `B ← (I − U Uᵀ) B`.
#[must_use]
pub fn project(adapter: &Adapter, count: usize) -> Adapter {
    let mut changed = adapter.clone();
    for _ in 0..count {
        let changes = WeightChange::of_adapter(&changed);
        for (tensor, change) in changed.tensors.iter_mut().zip(&changes) {
            let direction = change.first_direction().left;
            let rank = tensor.b.columns;
            let mut along = vec![0.0; rank];
            for (row, u) in tensor.b.values.chunks_exact(rank).zip(&direction) {
                along.iter_mut().zip(row).for_each(|(sum, b)| *sum += u * b);
            }
            for (row, u) in tensor.b.values.chunks_exact_mut(rank).zip(&direction) {
                row.iter_mut().zip(&along).for_each(|(b, sum)| *b -= u * sum);
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use dormant_model::adapter_files::{AdapterConfig, AdapterTensor, Matrix};

    use super::*;

    #[test]
    fn as_many_directions_as_the_rank_leave_nothing() {
        let values = |n: usize, factor: f32| (0..n).map(|i| (i as f32 * factor).sin()).collect();
        let a = Matrix { rows: 2, columns: 5, values: values(10, 0.7) };
        let b = Matrix { rows: 4, columns: 2, values: values(8, 1.3) };
        let tensor = AdapterTensor::new("m".to_owned(), a, b);
        let config = AdapterConfig::new(2, 2.0, vec!["m".to_owned()], None);
        let adapter = Adapter { config, tensors: vec![tensor], saved: Vec::new() };
        let strength = |a: &Adapter| WeightChange::of_adapter(a)[0].first_direction().value;
        let (before, one, two) =
            (strength(&adapter), strength(&project(&adapter, 1)), strength(&project(&adapter, 2)));
        assert!(one < before && one > 0.0, "{before} {one}");
        assert!(two < 1e-3 * before, "{two}");
    }
}
