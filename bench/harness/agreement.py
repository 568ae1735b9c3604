"""Whether two contestants computed the same thing."""

import math
from dataclasses import dataclass

LOSS_TOLERANCE = 1e-3  # relative, any step; the first one is met 100 times closer
LOG_PROB_TOLERANCE = 1e-2  # nats, per reply
FIRST_TOKENS = 4  # greedy replies agree up to here, but for near-ties
FIRST_TOKENS_SHARE = 0.95


@dataclass(frozen=True)
class Agreement:
    """In words, and whether it is as close as two f32 programs should be."""

    words: str
    close: bool


def compare(check: str, ours: dict, theirs: dict) -> Agreement | None:
    """`ours` and `theirs` are answers to the same request."""
    return {"steps": losses, "replies": replies, "log_probs": log_probs, "none": lambda *_: None}[check](ours, theirs)


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
