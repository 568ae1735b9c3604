"""From answers to a table."""

from dataclasses import dataclass
from statistics import median

from harness.agreement import Finding
from harness.flops import Model
from harness.workloads import RANK, Case, Contestant

HEAD = [
    "workload", "ours", "peer", "unit", "our median", "peer's", "times as fast (min–max)", "our peak MB", "peer's",
    "share of memory", "share of GEMM peak",
]  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One of ours against one peer."""

    case: Case
    ours: Contestant
    peer: Contestant
    values: tuple[float, float]  # medians
    ratios: list[float]  # how many times as fast, per repeat
    memory: tuple[int, int]
    peak_share: float | None

    def cells(self) -> list[str]:
        ours, peer = self.values
        spread = f"{median(self.ratios):.2f} ({min(self.ratios):.2f}–{max(self.ratios):.2f})"
        megabytes = [f"{bytes_ / 1e6:.0f}" for bytes_ in self.memory]
        share = f"{self.peak_share:.0%}" if self.peak_share else ""
        return [
            f"{self.case.workload}, {self.case.title}", self.ours.name, self.peer.name, self.case.unit, f"{ours:.3g}",
            f"{peer:.3g}", spread, *megabytes, f"{self.memory[0] / self.memory[1]:.2f}", share,
        ]  # fmt: skip


def lines(case: Case, record: dict, model: Model) -> list[Line]:
    runs = {c.name: [run for run in record["runs"] if run["contestant"] == c.name] for c in case.contestants}
    present = [c for c in case.contestants if runs[c.name]]
    pairs = [(ours, peer) for peer in present if not peer.ours for ours in present if ours.ours]
    peaks = record["peaks"]
    shares = {c.name: peak_share(case, runs[c.name], peaks, model) for c in present if c.ours and peaks}
    return [line(case, pair, runs[pair[0].name], runs[pair[1].name], shares.get(pair[0].name)) for pair in pairs]


def line(
    case: Case, pair: tuple[Contestant, Contestant], ours: list[dict], peers: list[dict], share: float | None
) -> Line:
    sign = 1 if case.more_is_better else -1
    theirs = {run["repeat"]: run[case.metric] for run in peers}
    together = [run for run in ours if run["repeat"] in theirs]
    return Line(
        case, *pair,
        values=(median(run[case.metric] for run in ours), median(theirs.values())),
        ratios=[(run[case.metric] / theirs[run["repeat"]]) ** sign for run in together],
        memory=(max(run["peak_rss_bytes"] for run in ours), max(run["peak_rss_bytes"] for run in peers)),
        peak_share=share,
    )  # fmt: skip


def peak_share(case: Case, ours: list[dict], peaks: list[dict], model: Model) -> float:
    """Median over the repeats of the operations per second of the timed steps against the peak of that repeat."""
    peak = {at["repeat"]: at for at in peaks}
    return median(gflops(case, run, model) / max(peak[run["repeat"]][run["precision"]].values()) for run in ours)


def gflops(case: Case, run: dict, model: Model) -> float:
    steps = run["steps"][1:]
    rows, labelled = (sum(step[key] for step in steps) for key in ("rows", "labelled"))
    lora = case.workload == "lora-sft"
    operations = model.lora(rows, labelled, RANK) if lora else model.full(rows, labelled)
    return operations / sum(step["seconds"] for step in steps) / 1e9


def peak_line(records: list[dict]) -> str:
    """Medians of all peaks."""
    found: dict[str, list[float]] = {}
    for at in (at for record in records for at in record["peaks"]):
        for precision, by in ((key, by) for key, by in at.items() if key != "repeat"):
            for program, peak in by.items():
                found.setdefault(f"{precision} by {program}", []).append(peak)
    return "; ".join(f"{what} {median(values):.0f} GFLOP/s" for what, values in found.items())


def markdown(about: dict, table: list[Line], found: list[Finding], records: list[dict]) -> str:
    failures = [
        f"- {record['workload']}, {record['title']}, {name}: {why}"
        for record in records
        for name, why in record["failures"].items()
    ]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    rows = [HEAD, ["---"] * 4 + ["--:"] * 7, *[line.cells() for line in table]]
    return "\n".join([
        f"# Comparison of {about['date']}",
        "",
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads; {about['model']}; {packages}; "
        f"commit {about['commit'][:12]}{' with changes' if about['dirty'] else ''}; {about['repeats']} repeats.",
        "",
        *["| " + " | ".join(row) + " |" for row in rows],
        "",
        f"Fastest matrix products: {peak_line(records) or 'not measured'}.",
        "",
        "## Agreement with ours in f32",
        "",
        *map(str, found),
        *(["", "## Failures", "", *failures] if failures else []),
        "",
    ])  # fmt: skip
