"""What all peers do alike: requests in, one JSON line each out, and the most memory that each took."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO


def take_stdout() -> TextIO:
    """Standard output for the answers alone; what libraries print goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(answer: Callable[[dict], dict], request: str | None, answers: TextIO) -> None:
    """Answers one request, or one per line of standard input. The process outlives a bad request."""
    lines: Iterable[str] = [request] if request else sys.stdin
    for line in lines:
        try:
            reply = with_peak(answer, json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


def with_peak(answer: Callable[[dict], dict], request: dict) -> dict:
    """The answer with the largest resident set of the process meanwhile."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    reply = answer(request)
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    return reply | {"peak_rss_bytes": int(peak) * 1024}
