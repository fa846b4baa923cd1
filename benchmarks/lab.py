"""What the benchmarks share: the machine's facts, figures, processes, and how results are printed."""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.real_cli.install import binaries
from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[1]
#: A key that opens nothing: the stand-in takes any.
FAKE_KEY = "sk-made-up-for-benchmarks"


@dataclass(frozen=True)
class Figures:
    """The spread of one measured thing, in milliseconds."""

    name: str
    n: int
    median: float
    p95: float

    @classmethod
    def of(cls, name: str, samples: Sequence[float]) -> Figures:
        """Figures of samples in milliseconds."""
        ordered = sorted(samples)
        p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
        return cls(name, len(ordered), statistics.median(ordered), p95)


def machine() -> dict[str, Any]:
    """What this ran on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": [round(x, 2) for x in os.getloadavg()],
    }


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds that a call takes."""
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def at_once(call: Callable[[], float], clients: int, rounds: int) -> list[float]:
    """The results of `rounds` rounds of `clients` calls at the same time."""
    with ThreadPoolExecutor(clients) as pool:
        return [result for _ in range(rounds) for result in pool.map(lambda _: call(), range(clients))]


@contextmanager
def stand_in() -> Iterator[str]:
    """The loopback stand-in of both model APIs, as a process of its own; its URL."""
    argv = [sys.executable, "-m", "tests.standin", "--port", "0"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def real_clis(url: str, **settings: str) -> dict[str, str]:
    """The environment of a bridge with both real CLIs in front of the stand-in at `url`, and further settings."""
    paths = binaries()
    return {
        "ANTHROPIC_API_KEY": FAKE_KEY,
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_API_KEY": FAKE_KEY,
        "OPENAI_BASE_URL": f"{url}/v1",
        "BRIDGE_CLAUDE_COMMAND": str(paths.claude),
        "BRIDGE_CODEX_COMMAND": str(paths.codex),
        **settings,
    }


def worker_pid(server: Server) -> int:
    """The process id of the process that serves."""
    (worker,) = psutil.Process(server.process.pid).children()
    return int(worker.pid)


def wait_until_warm(server: Server, wanted: int) -> None:
    """Until so many claude processes stand ready."""
    began = time.monotonic()
    while time.monotonic() < began + 60:
        providers = server.admin("GET", "/overview").json["providers"]
        if next(p["warm"] for p in providers if p["name"] == "claude") >= wanted:
            if time.monotonic() > began + 0.1:
                time.sleep(1.2)  # a process is ready a good second after its start
            return
        time.sleep(0.1)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="cli-bridge-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Client:
    """Calls of one bridge on a kept connection."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def generate(self, path: str, prompt: str = "hello", **more: Any) -> float:
        """Milliseconds for a JSON answer; `more` is the rest of the body."""

        def call() -> None:
            self._connection.request("POST", path, json.dumps({"userPrompt": prompt, **more}), self._headers)
            answer = self._connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body

        return timed(call)

    def first_delta(self, path: str, prompt: str = "hello") -> float:
        """Milliseconds to the first piece of text of a stream."""
        began = time.perf_counter()
        self._connection.request("POST", path, json.dumps({"userPrompt": prompt, "stream": True}), self._headers)
        answer = self._connection.getresponse()
        first = 0.0
        while line := answer.readline():
            if line.startswith(b"event: delta") and not first:
                first = 1000 * (time.perf_counter() - began)
        assert answer.status == 200
        assert first
        return first


def memory_mib(pid: int) -> dict[str, float]:
    """RSS and PSS of a process and of all below it, in MiB."""
    found = {"bridge_rss": 0.0, "bridge_pss": 0.0, "children_rss": 0.0, "children_pss": 0.0, "children": 0.0}
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        try:
            info = process.memory_full_info()
            # The arbiter and its worker look alike; everything else below is a CLI.
            part = "bridge" if process.cmdline() == top.cmdline() else "children"
        except psutil.Error:
            continue
        found[f"{part}_rss"] += info.rss / 2**20
        found[f"{part}_pss"] += info.pss / 2**20
        found["children"] += part == "children"
    return {name: round(value, 1) for name, value in found.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write_json(path: str | None, result: Mapping[str, Any]) -> None:
    """Write a result where it was asked for."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")
