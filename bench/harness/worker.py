"""A program that answers requests: one JSON line in, one JSON line out."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


class RequestFailed(Exception):
    """What a worker says when it cannot do what it was asked for."""


@dataclass(frozen=True)
class Program:
    """How to start a worker."""

    command: list[str]
    environment: dict[str, str]
    log: Path  # gets what the program says on stderr

    def start(self) -> "Worker":
        return Worker(self)


class Worker:
    """A running program; a context manager that ends it."""

    def __init__(self, program: Program):
        self.log = program.log
        self.started = time.perf_counter()
        with program.log.open("a") as log:
            self.process = subprocess.Popen(
                program.command, env=os.environ | program.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def ask(self, request: dict) -> dict:
        """The answer, with `since_start`: seconds from the start of the process until it was here."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which the empty answer tells
        line = self.process.stdout.readline()
        since_start = time.perf_counter() - self.started
        if not line:
            raise RequestFailed(f"the process ended (code {self.process.wait()}); see {self.log}")
        answer = json.loads(line)
        if "error" in answer:
            raise RequestFailed(answer["error"])
        answer.pop("request", None)
        return answer | {"since_start": since_start}

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its stdin, upon which it ends
