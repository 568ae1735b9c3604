//! The model below its adapters: the reference policy of reinforcement learning with LoRA, without a second copy.

use crate::llama::Llama;

impl Llama {
    /// Calls `work` with the adapters beside the weights switched off. What was merged into the weights stays.
    pub fn without_adapters<R>(&mut self, work: impl FnOnce(&Self) -> R) -> R {
        let adapters: Vec<_> = self.linears_mut().map(|linear| linear.adapters_in_use().take()).collect();
        let result = work(self);
        for (linear, adapter) in self.linears_mut().zip(adapters) {
            *linear.adapters_in_use() = adapter;
        }
        result
    }
}
