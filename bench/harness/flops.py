"""How many operations a workload needs, by formula.

Counted are the products with weight matrices, two operations per multiplication and addition:

    LoRA   rows · (4 N - 2 N_qkv + 6 r Σ(in + out)) + labelled · 4 d V
    full   rows · 6 N                               + labelled · 6 d V

rows: tokens that go through the model, what rows have in common counted once and the last token of a row, which
predicts nothing, not at all; labelled: tokens with a loss; N: weights of the blocks' projections; N_qkv: those of the
first block's queries, keys and values, which need no gradient of their input; r: rank; in, out: sizes of a projection;
d: width; V: vocabulary. Not counted, though it takes time: attention, norms, activations, the optimiser, packing.
"""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """Sizes of a Llama."""

    layers: int
    width: int
    vocabulary: int
    projections: list[tuple[int, int]]  # inputs and outputs of the projections of a block; queries, keys, values first

    @classmethod
    def read(cls, folder: Path) -> "Model":
        return cls.read_config(json.loads((folder / "config.json").read_text()))

    @classmethod
    def read_config(cls, config: dict) -> "Model":
        width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
        head = config.get("head_dim") or width // heads
        queries, keys = heads * head, config["num_key_value_heads"] * head
        attention = [(width, queries), (width, keys), (width, keys), (queries, width)]
        feed_forward = [(width, inner), (width, inner), (inner, width)]
        return cls(config["num_hidden_layers"], width, config["vocab_size"], attention + feed_forward)

    @property
    def weights(self) -> int:
        return self.layers * sum(inputs * outputs for inputs, outputs in self.projections)

    @property
    def first_qkv(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.projections[:3])

    def adapter(self, rank: int) -> int:
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.projections)

    def lora(self, rows: int, labelled: int, rank: int) -> int:
        blocks = 4 * self.weights - 2 * self.first_qkv + 6 * self.adapter(rank)
        return rows * blocks + labelled * 4 * self.width * self.vocabulary

    def full(self, rows: int, labelled: int) -> int:
        return rows * 6 * self.weights + labelled * 6 * self.width * self.vocabulary
