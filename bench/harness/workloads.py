"""What is compared. A new workload is one more function here that yields cases."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TRAINING = {"rows_per_step": 8, "weight_decay": 0.0, "clip": 1.0}
RATES = {"lora-sft": 2e-4, "full-sft": 2e-5}  # usual ones; SFTConfig's default is 2e-5
RANK, ALPHA = 16, 32


@dataclass(frozen=True)
class Amount:
    """How much of each workload is done in one run."""

    steps: int  # of training; the first is not timed
    new_tokens: int
    pairs: int


FULL = Amount(steps=5, new_tokens=32, pairs=500)
QUICK = Amount(steps=2, new_tokens=8, pairs=32)


@dataclass(frozen=True)
class Contestant:
    """Somebody's way to do the work."""

    name: str
    program: str  # dormant | torch | llama
    request: dict
    exact: bool = False  # f32 throughout: computes the same as the other exact ones

    @property
    def ours(self) -> bool:
        return self.program == "dormant"


@dataclass(frozen=True)
class Case:
    """Contestants that take turns; each in a process of its own."""

    workload: str
    title: str
    metric: str  # key of the answer
    unit: str
    contestants: list[Contestant]
    check: str | None  # steps | replies | log_probs: what of the answers is compared
    more_is_better: bool = True
    new_process: bool = False  # one per run; otherwise one for all, whose first request is `warm_up`
    warm_up: dict = field(default_factory=dict)  # replaces parts of the request
    shares_peak: bool = False  # whether a share of the peak of matrix products is worth printing


@dataclass(frozen=True)
class Data:
    """Files that all contestants read."""

    folder: Path
    adapter: Path

    def rows(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]

    def prompts(self, name: str, count: int) -> list[list[int]]:
        return [row["tokens"] for row in self.rows(name)[:count]]


# How PyTorch's side trains. SFTConfig's defaults are bf16 and gradient checkpointing.
STYLES = {
    "trl": {"style": "trl", "precision": "bf16", "checkpointing": True},
    "best": {"style": "best"},
    "packed": {"style": "best", "layout": "packed"},
    "plain-f32": {"style": "plain", "precision": "f32"},
}


def training(workload: str, data: Data, amount: Amount) -> Iterator[Case]:
    request = TRAINING | {"workload": workload, "lr": RATES[workload], "steps": amount.steps}
    request["data"] = str(data.folder / "sft.jsonl")
    if workload == "lora-sft":
        request["adapter"] = str(data.adapter)
    for title, style in STYLES.items():
        order = {"order": "length"} if title == "best" else {}  # `best` sorts; so that both train on the same steps
        yield Case(
            workload, title, "warm_tokens_per_second", "tok/s", check="steps", new_process=True, shares_peak=True,
            contestants=[
                Contestant("dormant-auto", "dormant", request | order | {"precision": "auto"}),
                Contestant("dormant-f32", "dormant", request | order | {"precision": "f32"}, exact=True),
                Contestant(title, "torch", request | style, exact=title == "plain-f32"),
            ],
        )  # fmt: skip


def reinforcing(data: Data, amount: Amount) -> Iterator[Case]:
    """TRL's defaults are bf16, checkpointing and 8 replies per backward pass."""
    request = {"workload": "grpo", "prompts": data.prompts("short", 8), "replies": 8, "new_tokens": amount.new_tokens}
    request |= {"steps": min(amount.steps, 3), "lr": 1e-5, "adapter": str(data.adapter)}
    styles = {
        "trl": {"precision": "bf16", "checkpointing": True, "micro_batch": 8},
        "best": {"precision": "bf16", "checkpointing": False, "micro_batch": 64},
    }
    for title, style in styles.items():
        yield Case(
            "grpo", title, "warm_steps_per_second", "steps/s", check=None, new_process=True,
            contestants=[
                Contestant("dormant-auto", "dormant", request | {"precision": "auto"}),
                Contestant("dormant-f32", "dormant", request | {"precision": "f32"}, exact=True),
                Contestant(title, "torch", request | style),
            ],
        )  # fmt: skip


def generating(request: dict, workload: str, title: str, metric: str, unit: str, **rest: object) -> Case:
    """A case for everybody who can generate."""
    contestants = [
        Contestant("dormant-auto", "dormant", request | {"precision": "auto"}),
        Contestant("dormant-f32", "dormant", request | {"precision": "f32"}, exact=True),
        Contestant("transformers-f32", "torch", request | {"precision": "f32"}, exact=True),
        Contestant("transformers-bf16", "torch", request | {"precision": "bf16"}),
        Contestant("llama.cpp", "llama", request),
    ]
    return Case(workload, title, metric, unit, contestants, **rest)


def sampling(data: Data, amount: Amount) -> Iterator[Case]:
    for prompts, count in [("short", 1), ("short", 16), ("short", 64), ("long", 1), ("long", 4)]:
        tokens = data.prompts(prompts, count)
        request = {"workload": "sample", "prompts": tokens, "new_tokens": amount.new_tokens}
        title, metric = f"{count} × {prompts}", "new_tokens_per_second"
        yield generating(request, "sample", title, metric, "tok/s", check="replies", warm_up={"new_tokens": 2})


def scoring(data: Data, amount: Amount) -> Iterator[Case]:
    request = {"workload": "score", "data": str(data.folder / "score.jsonl"), "n": amount.pairs}
    contestants = [
        Contestant("dormant-auto", "dormant", request | {"precision": "auto"}),
        Contestant("dormant-f32", "dormant", request | {"precision": "f32"}, exact=True),
        Contestant("plain-f32", "torch", request | {"precision": "f32"}, exact=True),
        Contestant("best", "torch", request | {"style": "best"}),
    ]
    title, metric = f"{amount.pairs} pairs", "pairs_per_second"
    yield Case("score", title, metric, "pairs/s", contestants, check="log_probs", warm_up={"n": 4})


def starting(data: Data, _amount: Amount) -> Iterator[Case]:
    first = {"workload": "sample", "prompts": data.prompts("short", 1), "new_tokens": 1}
    alike = {"metric": "since_start", "unit": "s", "more_is_better": False, "new_process": True}
    yield generating({"workload": "load"}, "load", "process start to model", check=None, **alike)
    yield generating(first, "first-token", "process start to token", check="replies", **alike)


def all_cases(data: Data, amount: Amount) -> Iterator[Case]:
    yield from training("lora-sft", data, amount)
    yield from training("full-sft", data, amount)
    yield from reinforcing(data, amount)
    yield from sampling(data, amount)
    yield from scoring(data, amount)
    yield from starting(data, amount)


WORKLOADS = ["lora-sft", "full-sft", "grpo", "sample", "score", "load", "first-token"]
