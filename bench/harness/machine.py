"""What a comparison needs on this machine: programs, weights, data; and what the machine is."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.worker import Program
from harness.workloads import ALPHA, RANK, Data

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "bench" / "peers"
DRIVER = "dormant-bench-driver"
PACKAGES = ["torch", "transformers", "peft", "trl", "accelerate", "llama_cpp_python"]


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def output(command: list[str | Path]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


@dataclass(frozen=True)
class Setup:
    """Everything ready to be started."""

    python: Path
    driver: Path
    model: Path  # GGUF
    hf: Path  # the same weights for transformers, in f32
    hf_bf16: Path
    work: Path
    threads: int
    has_llama: bool

    @property
    def data(self) -> Data:
        return Data(self.work / "data", self.work / "adapter")

    def program(self, name: str) -> Program:
        threads, torch = str(self.threads), [self.python, PEERS / "peft_bench.py", self.hf]
        command, environment = {
            "dormant": ([self.driver, self.model], {"RAYON_NUM_THREADS": threads}),
            "torch": ([*torch, "--bf16-model", self.hf_bf16, "--threads", threads], {}),
            "llama": ([self.python, PEERS / "llama_cpp_bench.py", self.model, "--threads", threads], {}),
        }[name]
        environment |= {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        return Program([str(part) for part in command], environment, self.work / f"{name}.log")


def prepare(
    work: Path, venv: Path | None, driver: Path | None, model: Path | None, hf: Path | None, threads: int
) -> Setup:
    work.mkdir(parents=True, exist_ok=True)
    python = venv / "bin" / "python" if venv else own_venv(ROOT / "bench" / ".venv")
    model = model or default_model()
    driver = driver or build_driver()
    hf = hf or hf_folder(python, model, work / "hf-f32", "f32")
    hf_bf16 = hf_folder(python, model, work / "hf-bf16", "bf16")
    has_llama = subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode == 0
    if not has_llama:
        say("llama-cpp-python is not installed: its part is left out")
    setup = Setup(python, driver, model, hf, hf_bf16, work, threads, has_llama)
    say("writing the data")
    output([driver, model, "rows", setup.data.folder])
    write_adapter(setup)
    return setup


def own_venv(folder: Path) -> Path:
    """Makes the virtual environment of the peers if it is not complete."""
    python, done = folder / "bin" / "python", folder / "COMPLETE"
    wanted = (PEERS / "requirements.txt").read_text() + (PEERS / "requirements-llama.txt").read_text()
    if done.exists() and done.read_text() == wanted:
        return python
    say(f"installing the peers into {folder}")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-r"]
    subprocess.run([*install, PEERS / "requirements.txt"], check=True)
    if subprocess.run([*install, PEERS / "requirements-llama.txt"]).returncode:
        say(f"llama-cpp-python cannot be installed here; to try again, delete {done}")
    done.write_text(wanted)
    return python


def default_model() -> Path:
    cargo = ["cargo", "run", "--release", "--quiet", "-p", "dormant", "--"]
    return Path(json.loads(output([*cargo, "models", "pull", "smollm2-135m-instruct", "--format", "json"]))["path"])


def build_driver() -> Path:
    say("building the driver")
    messages = output(["cargo", "build", "--release", "-p", DRIVER, "--message-format", "json"])
    found = [json.loads(line).get("executable") for line in messages.splitlines()]
    return Path(next(path for path in reversed(found) if path))


def hf_folder(python: Path, model: Path, folder: Path, dtype: str) -> Path:
    if not (folder / "config.json").exists():  # written last
        say(f"dequantising the weights for transformers to {dtype}")
        output([python, PEERS / "gguf_to_hf.py", model, folder, dtype])
    return folder


def write_adapter(setup: Setup) -> None:
    """The adapter that all LoRA training starts from."""
    folder = setup.data.adapter
    if not (folder / "adapter_config.json").exists():
        say("writing the adapter to start from")
        with setup.program("torch").start() as torch:
            torch.ask({"workload": "adapter", "folder": str(folder), "rank": RANK, "alpha": ALPHA})


def describe(setup: Setup) -> dict:
    """The machine and the versions, for the record."""
    listed = json.loads(output([setup.python, "-m", "pip", "list", "--format", "json"]))
    versions = {package["name"].lower().replace("-", "_"): package["version"] for package in listed}
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": output(["git", "rev-parse", "HEAD"]).strip(),
        "dirty": bool(output(["git", "status", "--porcelain"])),
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "threads": setup.threads,
        "system": platform.platform(),
        "packages": {name: versions[name] for name in PACKAGES if name in versions},
        "model": setup.model.name,
    }
