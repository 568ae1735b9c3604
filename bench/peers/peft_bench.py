"""PyTorch + transformers + PEFT + TRL as a peer: training steps and sampling, one JSON line per request.

    python peft_bench.py MODEL_DIR '{"workload": "lora-sft", "data": "rows.jsonl", "steps": 4}'
    python peft_bench.py MODEL_DIR < requests.jsonl      # stays alive, so that runs can be interleaved

MODEL_DIR is a Hugging Face folder; weights wanted in bf16 are read from that of `--bf16-model` [MODEL_DIR]. Answers go
to stdout, all else to stderr; a request that fails is answered with {"error": ...}. `--threads` (2) applies to the
whole process. Times exclude loading. Defaults are in brackets.

`lora-sft`, `full-sft`: `data` is JSONL of {"tokens": [...], "mask": [...]}, mask 1 = loss on that token, in order.
    style         trl: the real SFTTrainer | plain: its loop written out | best: plain with every knob turned [plain]
    steps, rows_per_step, micro_batch, lr, weight_decay, clip, rank, alpha    [4, 8, 8, 1e-3, 0, 1, 16, 32]
    precision     f32 | bf16: autocast, frozen weights stored in bf16 [f32; best: bf16 if the CPU multiplies it]
    layout        padded: to the longest row of a micro-batch | sorted: the same, the request's rows sorted by length |
                  packed: one row under a block-diagonal mask [padded; best: sorted]
    labelled_logits   logits only where there is a label [false; best: true; SFTTrainer always does so]
    checkpointing     trl only: recompute activations [false; SFTTrainer's own default is true]
    adapter           PEFT folder to start from, lora-sft only [a fresh one of `rank` and `alpha`]
    continue          `steps` more of the last request, all else as it was [false; not for trl]
Answer: seconds, tokens (without padding) and loss of each step; tokens_per_second, and the same without the first step
(`warm_…`); peak_rss_bytes of the process during the request.

`grpo`: TRL's GRPOTrainer on `prompts`, `replies` each of `new_tokens` tokens, LoRA from `adapter`; `steps`, `lr`, `precision`,
`checkpointing`, `micro_batch` (replies per backward pass). The reward is the share of even tokens. Answer: seconds and rewards of each
step, and steps per second without the first.

`sample`: `prompts` [[token, ...], ...] or `data` (rows cut at the first loss token) and `n`; `new_tokens` [32],
`temperature` [0 = greedy], `stop` at the end token [false], `batch` [all], `precision`, `seed`.
Answer: seconds, new_tokens, new_tokens_per_second, replies, peak_rss_bytes.

`score`: log-probability of the labelled tokens of the first `n` rows of `data`, in batches of `batch` [16] padded
rows; `precision`, `layout` (padded | sorted), `labelled_logits` and `style` as above.
Answer: seconds, pairs_per_second, log_probs.

`load`: the model for sampling, in `precision`. `adapter`: writes a fresh adapter (`rank`, `alpha`, `seed`) to `folder`.
`gemm`: `seconds` spent in search of the fastest matrix product in `precision`. Answer: gflops.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from serve import serve, take_stdout
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback

NO_LOSS = -100
DEFAULTS = {
    "style": "plain", "steps": 4, "rows_per_step": 8, "micro_batch": 8, "lr": 1e-3, "weight_decay": 0.0, "clip": 1.0,
    "rank": 16, "alpha": 32, "precision": "f32", "layout": "padded", "labelled_logits": False, "checkpointing": False,
    "continue": False, "seed": 0,
}
Folders = dict[torch.dtype, str]  # of the weights in each format
BF16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
BEST = {"precision": "bf16" if BF16 else "f32", "layout": "sorted", "labelled_logits": True}
GEMM_SHAPES = [(512, 576, 3072), (512, 1536, 576), (1024, 1024, 1024), (2048, 2048, 2048)]  # rows, inner, columns


def read_rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def steps_of(request: dict, first_row: int) -> list[list[dict]]:
    """The rows of each step of a request."""
    rows, count = read_rows(request["data"]), request["rows_per_step"]
    window = [rows[(first_row + i) % len(rows)] for i in range(request["steps"] * count)]
    if request["layout"] == "sorted":
        window.sort(key=lambda row: len(row["tokens"]))
    return [window[i : i + count] for i in range(0, len(window), count)]


def token_count(rows: list[dict]) -> int:
    return sum(len(row["tokens"]) for row in rows)


def labels_of(row: dict) -> list[int]:
    """Aligned with the tokens; Hugging Face models shift them themselves."""
    return [token if on else NO_LOSS for token, on in zip(row["tokens"], row["mask"], strict=True)]


def load(folders: Folders, dtype: torch.dtype) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folders[dtype], dtype=dtype, attn_implementation="sdpa")


def dtype_of(request: dict) -> torch.dtype:
    return torch.bfloat16 if request["precision"] == "bf16" else torch.float32


def trainable(folders: Folders, request: dict) -> nn.Module:
    torch.manual_seed(request["seed"])
    if request["workload"] == "full-sft":
        return load(folders, torch.float32)
    from peft import LoraConfig, PeftModel, get_peft_model  # here, so that sampling starts without it

    base = load(folders, dtype_of(request))
    if "adapter" in request:
        return PeftModel.from_pretrained(base, request["adapter"], is_trainable=True)
    config = LoraConfig(r=request["rank"], lora_alpha=request["alpha"], target_modules="all-linear")
    return get_peft_model(base, config)  # keeps A and B in f32 whatever the base


def padded(rows: list[dict]) -> dict[str, Tensor]:
    width = max(len(row["tokens"]) for row in rows)

    def fill(values: list[int], value: int) -> list[int]:
        return values + [value] * (width - len(values))

    return {
        "input_ids": torch.tensor([fill(row["tokens"], 0) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row["tokens"]), 0) for row in rows]),
        "labels": torch.tensor([fill(labels_of(row), NO_LOSS) for row in rows]),
    }


def packed(rows: list[dict]) -> dict[str, Tensor]:
    """One row; restarting positions tell transformers where to cut attention."""
    return {
        "input_ids": torch.tensor([sum((row["tokens"] for row in rows), [])]),
        "position_ids": torch.tensor([sum((list(range(len(row["tokens"]))) for row in rows), [])]),
        "labels": torch.tensor([sum(([NO_LOSS] + labels_of(row)[1:] for row in rows), [])]),
    }


class Session:
    """A model in training, and how many rows it has seen."""

    def __init__(self, folders: Folders, request: dict):
        self.request, self.seen = request, 0
        self.model = trainable(folders, request).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        lr, decay = request["lr"], request["weight_decay"]
        self.optimizer = torch.optim.AdamW(self.parameters, lr, weight_decay=decay, fused=True)

    def run(self, steps: int) -> list[dict]:
        done = [self.step(rows) for rows in steps_of(self.request | {"steps": steps}, self.seen)]
        self.seen += steps * self.request["rows_per_step"]
        return done

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Summed over the labelled tokens."""
        labels = nn.functional.pad(batch.pop("labels")[:, 1:], (0, 1), value=NO_LOSS)
        llama = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        hidden = llama.model(**batch, use_cache=False).last_hidden_state
        if self.request["labelled_logits"]:
            hidden, labels = hidden[labels != NO_LOSS], labels[labels != NO_LOSS]
        logits = llama.lm_head(hidden).float().flatten(0, -2)
        return nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=NO_LOSS, reduction="sum")

    def step(self, rows: list[dict]) -> dict:
        start, total, size = time.perf_counter(), 0.0, self.request["micro_batch"]
        join = packed if self.request["layout"] == "packed" else padded
        loss_tokens = sum(sum(row["mask"][1:]) for row in rows)
        for i in range(0, len(rows), size):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.request["precision"] == "bf16"):
                loss = self.loss(join(rows[i : i + size])) / loss_tokens
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(self.parameters, self.request["clip"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"seconds": time.perf_counter() - start, "tokens": token_count(rows), "loss": total}


def rate(steps: list[dict]) -> float | None:
    return sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps) if steps else None


class StepClock(TrainerCallback):
    def __init__(self):
        self.seconds, self.losses = [], []

    def on_step_begin(self, *_args, **_kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, *_args, **_kwargs):
        self.seconds.append(time.perf_counter() - self.start)

    def on_log(self, *_args, logs, **_kwargs):
        self.losses += [float(logs["loss"])] if "loss" in logs else []


def trl_steps(folders: Folders, request: dict) -> list[dict]:
    """The real SFTTrainer; a step's time runs from its first micro-batch to after the update, without data loading."""
    from datasets import Dataset  # here, so that the other styles do not carry the memory of these libraries
    from tokenizers import Tokenizer, models
    from trl import SFTConfig, SFTTrainer

    per_step = steps_of(request, 0)
    words = Tokenizer(models.WordLevel({"<pad>": 0}, "<pad>"))  # rows are tokenised: only padding is asked for
    stand_in = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>")
    config = SFTConfig(
        max_steps=request["steps"], per_device_train_batch_size=request["micro_batch"],
        gradient_accumulation_steps=request["rows_per_step"] // request["micro_batch"], max_grad_norm=request["clip"],
        learning_rate=request["lr"], lr_scheduler_type="constant", weight_decay=request["weight_decay"],
        bf16=request["precision"] == "bf16", gradient_checkpointing=request["checkpointing"], use_cpu=True,
        padding_free=request["layout"] == "packed", max_length=None, train_sampling_strategy="sequential",
        output_dir=tempfile.gettempdir(), save_strategy="no", report_to="none", logging_steps=1, disable_tqdm=True,
    )
    clock = StepClock()
    rows = [row for step in per_step for row in step]
    data = Dataset.from_list([{"input_ids": row["tokens"], "labels": labels_of(row)} for row in rows])
    SFTTrainer(trainable(folders, request), config, None, data, processing_class=stand_in, callbacks=[clock]).train()
    steps = zip(clock.seconds, per_step, clock.losses, strict=True)
    return [{"seconds": seconds, "tokens": token_count(rows), "loss": loss} for seconds, rows, loss in steps]


def grpo_steps(folders: Folders, request: dict) -> dict:
    """The real GRPOTrainer. A step runs from before sampling to after the update."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from trl import GRPOConfig, GRPOTrainer

    model = trainable(folders, request)
    size = model.config.vocab_size
    words = Tokenizer(models.WordLevel({str(token): token for token in range(size)}, "0"))  # a word is a token's number
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    stand_in = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="0", padding_side="left")
    prompts, replies, micro = request["prompts"], request["replies"], request["micro_batch"]
    config = GRPOConfig(
        max_steps=request["steps"], per_device_train_batch_size=micro, num_generations=replies,
        gradient_accumulation_steps=len(prompts) * replies // micro, max_completion_length=request["new_tokens"],
        learning_rate=request["lr"], lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=request["clip"],
        bf16=request["precision"] == "bf16", gradient_checkpointing=request["checkpointing"], use_cpu=True,
        output_dir=tempfile.gettempdir(), save_strategy="no", report_to="none", logging_steps=1, disable_tqdm=True,
        shuffle_dataset=False, seed=request["seed"],
    )
    rewards = []

    def even_tokens(completion_ids: list[list[int]], **_kwargs: object) -> list[float]:
        shares = [sum(token % 2 == 0 for token in reply) / max(len(reply), 1) for reply in completion_ids]
        rewards.append(sum(shares) / len(shares))
        return shares

    clock = StepClock()
    data = Dataset.from_list([{"prompt": " ".join(map(str, prompt))} for prompt in prompts])
    GRPOTrainer(model, even_tokens, config, data, processing_class=stand_in, callbacks=[clock]).train()
    warm = clock.seconds[1:]
    return {"seconds": clock.seconds, "rewards": rewards, "warm_steps_per_second": len(warm) / sum(warm) if warm else None}


def gemm_rate(shape: tuple[int, int, int], dtype: torch.dtype, limit: float) -> float:
    """GFLOP/s of the fastest product within `limit` seconds, of at least one."""
    rows, inner, columns = shape
    x, weight = torch.full((rows, inner), 0.25, dtype=dtype), torch.full((columns, inner), 0.5, dtype=dtype)
    begun, fastest = time.perf_counter(), float("inf")
    while fastest == float("inf") or time.perf_counter() - begun < limit:
        start = time.perf_counter()
        nn.functional.linear(x, weight)
        fastest = min(fastest, time.perf_counter() - start)
    return 2e-9 * rows * inner * columns / fastest


class Peer:
    def __init__(self, folders: Folders):
        self.folders, self.session, self.sampler = folders, None, None

    def train(self, request: dict) -> dict:
        if not request["continue"]:
            self.session = None  # freed before the next one is loaded
            if request["style"] != "trl":
                self.session = Session(self.folders, request)
        steps = self.session.run(request["steps"]) if self.session else trl_steps(self.folders, request)
        return {"steps": steps, "tokens_per_second": rate(steps), "warm_tokens_per_second": rate(steps[1:])}

    def sample(self, request: dict) -> dict:
        prompts = request.get("prompts") or [
            row["tokens"][: row["mask"].index(1)] for row in read_rows(request["data"])[: request.get("n")]
        ]
        self.load(request)
        torch.manual_seed(request["seed"])
        start, size = time.perf_counter(), request.get("batch", len(prompts))
        replies = [r for i in range(0, len(prompts), size) for r in self.replies(prompts[i : i + size], request)]
        seconds, count = time.perf_counter() - start, sum(map(len, replies))
        return {"seconds": seconds, "new_tokens": count, "new_tokens_per_second": count / seconds, "replies": replies}

    def replies(self, prompts: list[list[int]], request: dict) -> list[list[int]]:
        width, new = max(map(len, prompts)), request.get("new_tokens", 32)
        temperature, stop = request.get("temperature", 0.0), request.get("stop", False)
        eos = self.sampler.config.eos_token_id
        self.sampler.generation_config.eos_token_id = eos if stop else None
        choice = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        out = self.sampler.generate(
            input_ids=torch.tensor([[eos] * (width - len(p)) + p for p in prompts]),
            attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
            max_new_tokens=new, pad_token_id=eos, **choice,
        )[:, width:].tolist()
        return [reply[: reply.index(eos) + 1] if stop and eos in reply else reply for reply in out]

    def load(self, request: dict) -> dict:
        if self.sampler is None or self.sampler.dtype != dtype_of(request):
            self.sampler = load(self.folders, dtype_of(request)).eval()
        return {}

    def score(self, request: dict) -> dict:
        rows, size = read_rows(request["data"])[: request["n"]], request.get("batch", 16)
        self.load(request)
        start = time.perf_counter()
        length = (lambda i: len(rows[i]["tokens"])) if request["layout"] == "sorted" else None
        order, scores = sorted(range(len(rows)), key=length), {}
        for i in range(0, len(order), size):
            batch = order[i : i + size]
            scores |= zip(batch, self.log_probs([rows[j] for j in batch], request), strict=True)
        seconds = time.perf_counter() - start
        log_probs = [scores[i] for i in range(len(rows))]
        return {"seconds": seconds, "pairs_per_second": len(rows) / seconds, "log_probs": log_probs}

    @torch.inference_mode()
    def log_probs(self, rows: list[dict], request: dict) -> list[float]:
        batch = padded(rows)
        labels = nn.functional.pad(batch.pop("labels")[:, 1:], (0, 1), value=NO_LOSS)
        hidden = self.sampler.model(**batch, use_cache=False).last_hidden_state
        where = labels != NO_LOSS if request["labelled_logits"] else torch.ones_like(labels, dtype=torch.bool)
        losses = torch.zeros(labels.shape)
        logits = self.sampler.lm_head(hidden[where]).float()
        losses[where] = nn.functional.cross_entropy(logits, labels[where], ignore_index=NO_LOSS, reduction="none")
        return (-losses.sum(1)).tolist()

    def adapter(self, request: dict) -> dict:
        trainable(self.folders, request).save_pretrained(request["folder"])
        return {}

    def gemm(self, request: dict) -> dict:
        seconds = request["seconds"] / len(GEMM_SHAPES)
        return {"gflops": max(gemm_rate(shape, dtype_of(request), seconds) for shape in GEMM_SHAPES)}

    def answer(self, request: dict) -> dict:
        request = DEFAULTS | (BEST if request.get("style") == "best" else {}) | request
        work = {
            "lora-sft": self.train, "full-sft": self.train, "sample": self.sample, "score": self.score,
            "grpo": lambda request: grpo_steps(self.folders, request),
            "load": self.load, "adapter": self.adapter, "gemm": self.gemm,
        }[request["workload"]]
        return {"request": request} | work(request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("request", nargs="?", help="one JSON request; without it, one per line from stdin")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16-model")
    arguments = parser.parse_args()
    answers = take_stdout()
    torch.set_num_threads(arguments.threads)
    peer = Peer({torch.float32: arguments.model, torch.bfloat16: arguments.bf16_model or arguments.model})
    serve(peer.answer, arguments.request, answers)


if __name__ == "__main__":
    main()
