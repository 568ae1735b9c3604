"""Dequantises a GGUF file into a Hugging Face folder for peft_bench.py and adapters.py: safetensors (f32), tokenizer.

    python gguf_to_hf.py MODEL.gguf FOLDER [f32 | bf16]
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig


def main() -> None:
    gguf, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    dtype = torch.bfloat16 if "bf16" in sys.argv[3:] else torch.float32
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).to(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = model.config.to_dict()
    config.pop("quantization_config", None)  # the weights are plain now
    LlamaConfig(**config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # Out of a GGUF file transformers takes another cut of numbers than that of the published tokenizer.json of SmolLM2.
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
