"""Runs the cases: contestants take turns, so that a machine that becomes faster or slower does so for all of them."""

from contextlib import ExitStack

from harness.machine import Setup, say
from harness.worker import RequestFailed, Worker
from harness.workloads import Case, Contestant

PEAK_SECONDS = 0.6  # per precision and program


def run_case(setup: Setup, case: Case, repeats: int) -> dict:
    """All answers, and the peaks of matrix products measured between them."""
    programs = [c for c in case.contestants if c.program != "llama" or setup.has_llama]
    record = {"workload": case.workload, "title": case.title, "runs": [], "peaks": [], "failures": {}}
    with ExitStack() as stack:
        turns = [Turn(setup, case, contestant, stack) for contestant in programs]
        for repeat in range(repeats):
            for turn in [turn for turn in turns if turn.name not in record["failures"]]:
                try:
                    answer = turn.take()
                except RequestFailed as failure:
                    say(f"  {turn.name}: {failure}")
                    record["failures"][turn.name] = str(failure)
                    continue
                record["runs"].append({"repeat": repeat, "contestant": turn.name} | answer)
                say(f"  {repeat + 1}/{repeats} {turn.name}: {answer[case.metric]:.4g} {case.unit}")
            if case.shares_peak:
                ours = {run["precision"] for run in record["runs"] if "precision" in run}
                record["peaks"].append({"repeat": repeat} | peaks(setup, ours))
    return record


class Turn:
    """A contestant and its process."""

    def __init__(self, setup: Setup, case: Case, contestant: Contestant, stack: ExitStack):
        self.name, self.request, self.program = contestant.name, contestant.request, setup.program(contestant.program)
        self.warm_up, self.worker, self.stack = case.warm_up, None, stack
        self.new_process = case.new_process

    def take(self) -> dict:
        if self.new_process:
            with self.program.start() as worker:
                return worker.ask(self.request)
        return self.warm_worker().ask(self.request)

    def warm_worker(self) -> Worker:
        if self.worker is None:
            self.worker = self.stack.enter_context(self.program.start())
            self.worker.ask(self.request | self.warm_up)
        return self.worker


def peaks(setup: Setup, precisions: set[str]) -> dict[str, dict[str, float]]:
    """The fastest matrix products of us and of PyTorch, in GFLOP/s: `{precision: {program: peak}}`."""
    found: dict[str, dict[str, float]] = {precision: {} for precision in sorted(precisions)}
    for name in ["dormant", "torch"]:
        with setup.program(name).start() as worker:
            for precision, peak in found.items():
                request = {"workload": "gemm", "precision": precision, "seconds": PEAK_SECONDS}
                peak[name] = worker.ask(request)["gflops"]
    return found
