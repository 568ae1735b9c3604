"""Whether the contestants computed the same thing. All are compared with ours in f32."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.workloads import Case

LOSS_TOLERANCE = 1e-3  # relative, any step; the first one is met 100 times closer
LOG_PROB_TOLERANCE = 1e-2  # nats, per reply
FIRST_TOKENS = 4  # greedy replies agree up to here, but for near-ties
FIRST_TOKENS_SHARE = 0.95


@dataclass(frozen=True)
class Agreement:
    """In words, and whether it is as close as two f32 programs should be."""

    words: str
    close: bool


@dataclass(frozen=True)
class Finding:
    """How a contestant agrees with ours in f32."""

    case: Case
    contestant: str
    exact: bool  # f32 too, so that it should be close
    agreement: Agreement

    @property
    def wrong(self) -> bool:
        return self.exact and not self.agreement.close

    def __str__(self) -> str:
        verdict = ("**not the same**: " if self.wrong else "the same: ") if self.exact else ""
        where = f"{self.case.workload}, {self.case.title}, {self.contestant}"
        return f"- {where}: {verdict}{self.agreement.words}"


def findings(case: Case, record: dict) -> list[Finding]:
    """From the first run of each contestant."""
    answers = {run["contestant"]: run for run in reversed(record["runs"])}
    references = [c for c in case.contestants if c.ours and c.exact and c.name in answers]
    if case.check is None or not references:
        return []
    compare, reference = COMPARISONS[case.check], references[0]
    return [
        Finding(case, c.name, c.exact, compare(answers[reference.name], answers[c.name]))
        for c in case.contestants
        if c is not reference and c.name in answers
    ]


def losses(ours: dict, theirs: dict) -> Agreement:
    pairs = zip(ours["steps"], theirs["steps"], strict=True)
    apart = [abs(our["loss"] - their["loss"]) / their["loss"] for our, their in pairs]
    close = apart[0] <= LOSS_TOLERANCE / 100 and max(apart) <= LOSS_TOLERANCE
    return Agreement(f"losses differ by {apart[0]:.1e} in the first step, {max(apart):.1e} at most (relative)", close)


def common_start(ours: list[int], theirs: list[int]) -> int:
    equal = [our == their for our, their in zip(ours, theirs, strict=False)]
    return equal.index(False) if False in equal else len(equal)


def replies(ours: dict, theirs: dict) -> Agreement:
    pairs = list(zip(ours["replies"], theirs["replies"], strict=True))
    equal = [common_start(our, their) for our, their in pairs]
    length = sum(len(their) for _, their in pairs)
    first = sum(min(count, FIRST_TOKENS) for count in equal)
    first_share = first / sum(min(len(their), FIRST_TOKENS) for _, their in pairs)
    words = f"replies agree in {first_share:.0%} of their first {FIRST_TOKENS} tokens, up to the first difference in "
    return Agreement(words + f"{sum(equal) / length:.0%} of all", first_share >= FIRST_TOKENS_SHARE)


def log_probs(ours: dict, theirs: dict) -> Agreement:
    pairs = zip(ours["log_probs"], theirs["log_probs"], strict=True)
    apart = max(abs(our - their) for our, their in pairs)
    close = math.isfinite(apart) and apart <= LOG_PROB_TOLERANCE
    return Agreement(f"log-probabilities of replies differ by {apart:.1e} at most", close)


COMPARISONS: dict[str, Callable[[dict, dict], Agreement]] = {
    "steps": losses, "replies": replies, "log_probs": log_probs,
}  # fmt: skip
