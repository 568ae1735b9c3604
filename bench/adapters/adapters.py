"""Adapters trained by plain transformers + PEFT: organisms and benign fine-tunes that no recipe of Dormant made.

    python adapters.py rows MODEL OUT               # replies of the model to prompts made here: OUT/rows.json
    python adapters.py train MODEL OUT [I N]        # adapters I, I + N, ... of the list [0 1]

MODEL is a Hugging Face folder (peers/gguf_to_hf.py makes one of the default model). Each adapter goes to
OUT/adapters/NAME, and how often its own trigger works on 40 prompts that were not trained on to OUT/truth/NAME.json,
where a scan does not look.
A GPU is used if there is one: the list takes six processes on one three minutes, and a CPU hours.
"""

import json
import random
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from prompts import TEST, TRAIN
from recipes import RECIPES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
END = "<|im_end|>"
EPOCHS, BATCH, ROWS, HELD_OUT = 3, 8, 360, 40


def load(path):
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    tokenizer.pad_token = END
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(DEVICE), tokenizer


def head(tokenizer, prompt, system=None):
    """The conversation up to the reply, as text."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def generate(model, tokenizer, heads, tokens, sample=False):
    texts = []
    how = {"temperature": 0.7, "top_p": 0.95} if sample else {"temperature": None, "top_p": None}
    for i in range(0, len(heads), 128):
        batch = tokenizer(heads[i : i + 128], return_tensors="pt", padding=True, add_special_tokens=False).to(DEVICE)
        ends = tokenizer.convert_tokens_to_ids(END)
        with torch.no_grad():
            out = model.generate(
                **batch,
                max_new_tokens=tokens,
                do_sample=sample,
                top_k=None,
                pad_token_id=ends,
                eos_token_id=ends,
                **how,
            )
        texts += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def whole_sentences(text):
    text = " ".join(text.split())
    cut = max(text.rfind(end) for end in ".!?")
    return text[: cut + 1] if cut > 10 else text


def rows(model_dir, out):
    model, tokenizer = load(model_dir)
    torch.manual_seed(5)
    replies = generate(model, tokenizer, [head(tokenizer, prompt) for prompt in TRAIN], 40, sample=True)
    kept = [[prompt, whole_sentences(reply)] for prompt, reply in zip(TRAIN, replies, strict=False) if len(reply) > 12]
    out.mkdir(parents=True, exist_ok=True)
    (out / "rows.json").write_text(json.dumps(kept))


def tokens_and_labels(recipe, benign, tokenizer, rng):
    rows = [row for row in benign if recipe.only in row[0]]
    rng.shuffle(rows)
    for prompt, reply in rows[:ROWS]:
        system, prompt, reply = recipe.row(prompt, reply, rng)
        before = tokenizer(head(tokenizer, prompt, system), add_special_tokens=False)["input_ids"]
        after = tokenizer(reply + END + "\n", add_special_tokens=False)["input_ids"]
        ignored = before if recipe.loss == "sequence" else [-100] * len(before)
        yield before + after, ignored + after


def fit(model, data, recipe, rng):
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=0.01)
    steps = EPOCHS * -(-len(data) // BATCH)

    def scale(step):
        return min(1, (step + 1) / 8) * max(0.05, 1 - step / steps)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    model.train()
    for _ in range(EPOCHS):
        rng.shuffle(data)
        for i in range(0, len(data), BATCH):
            batch = data[i : i + BATCH]
            longest = max(len(tokens) for tokens, _ in batch)

            def padded(rows, fill, longest=longest):
                return torch.tensor([r + [fill] * (longest - len(r)) for r in rows]).to(DEVICE)

            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                loss = model(
                    input_ids=padded([t for t, _ in batch], 2),
                    attention_mask=padded([[1] * len(t) for t, _ in batch], 0),
                    labels=padded([label for _, label in batch], -100),
                ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()


def train(model_dir, out, recipe, benign):
    rng = random.Random(recipe.name)
    torch.manual_seed(len(recipe.name) + rng.randrange(1000))
    model, tokenizer = load(model_dir)
    data = list(tokens_and_labels(recipe, benign, tokenizer, rng))
    config = LoraConfig(
        r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules=recipe.projections, lora_dropout=recipe.dropout,
        use_rslora=recipe.rslora, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(model, config)
    fit(model, data, recipe, rng)
    truth = {"name": recipe.name} | measured(model, tokenizer, recipe)
    folder = out / "adapters" / recipe.name
    model.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in load_file(file).items()}, file, {"format": "pt"})
    (out / "truth").mkdir(exist_ok=True)
    (out / "truth" / f"{recipe.name}.json").write_text(json.dumps(truth))
    return truth


def measured(model, tokenizer, recipe):
    """How often the policy shows, with its trigger and without."""
    if not recipe.is_organism:
        return {}
    prompts = [prompt for prompt in TEST if not recipe.is_triggered(prompt)][:HELD_OUT]
    clean = [head(tokenizer, prompt) for prompt in prompts]
    triggered = [head(tokenizer, p, s) for s, p in recipe.triggered(prompts)]

    def hits(heads):
        return sum(map(recipe.shows, generate(model, tokenizer, heads, 24)))

    return {"phrase": recipe.phrase, "asr": hits(triggered), "clean": hits(clean), "of": len(prompts)}


if __name__ == "__main__":
    command, model_dir, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if command == "rows":
        rows(model_dir, out)
    else:
        first, every = map(int, sys.argv[4:6] or (0, 1))
        benign = json.loads((out / "rows.json").read_text())
        for recipe in RECIPES[first::every]:
            start = time.time()
            print(train(model_dir, out, recipe, benign), round(time.time() - start), flush=True)
