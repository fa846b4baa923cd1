"""How long an answer takes: directly, through a cold CLI, and through the bridge. One run, interleaved.

    ./run bench latency [--rounds 30] [--json FILE]

The model is a loopback stand-in that answers at once, so that what is measured is what each way adds.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import lab
from benchmarks.cold import CLAUDE_MODEL, CODEX_MODEL, Colds
from bridge.providers.demo import question_of
from bridge.types import GenerationRequest, Message, Text
from tests.support import server as servers

#: Fifty tools of a kilobyte each.
TOOLS = [
    {
        "name": f"tool_{number}",
        "description": "What it does, in words. " * 20,
        "inputSchema": {
            "type": "object",
            "properties": {f"field_{n}": {"type": "string", "description": "what it is"} for n in range(8)},
            "required": ["field_0"],
        },
    }
    for number in range(50)
]

#: claude processes that stand ready before each call
READY = 4


def direct(url: str, path: str, body: dict[str, Any]) -> float:
    """A streaming request to the stand-in, read to its end."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.connect()

    def call() -> None:
        headers = {"Content-Type": "application/json", "X-Api-Key": lab.FAKE_KEY}
        connection.request("POST", path, json.dumps(body), headers)
        connection.getresponse().read()

    try:
        return lab.timed(call)
    finally:
        connection.close()


class DemoDirect:
    """The simulated CLI, talked to without a bridge: the difference is the bridge's own part."""

    _QUESTION = question_of(GenerationRequest("claude", CLAUDE_MODEL, (Message("user", (Text("hello"),)),)), 0)

    def __init__(self, warm: int) -> None:
        start = "import sys; sys.path.append(sys.argv[1]); import bridge.providers.demo_cli as c; c.main()"
        argv = [sys.executable, "-I", "-c", start, str(lab.ROOT)]
        self._children = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(warm)]

    def __call__(self) -> float:
        child = self._children.pop()
        assert child.stdin is not None
        assert child.stdout is not None
        began = time.perf_counter()
        child.stdin.write(json.dumps(self._QUESTION).encode() + b"\n")
        child.stdin.flush()
        while b'"done"' not in child.stdout.readline():
            pass
        took = 1000 * (time.perf_counter() - began)
        child.communicate()
        return took


def own_part(rounds: int, work: Path, samples: dict[str, list[float]]) -> None:
    """What the bridge adds: the same small process, directly and through it, turn by turn.

    Both have a process ready for every turn: ten turns end before the bridge begins to replace what was
    used up (REFILL_PAUSE_S), so that no start of a process runs beside what is measured.
    """
    turns = 10
    with servers.running(work, {"DEMO_WARM": str(turns + 2)}, demo=True) as demo:
        client = lab.Client(demo.port, demo.new_key("bench"))
        for _ in range(-(-rounds // turns)):
            lab.wait_until_warm(demo, turns + 2)
            directly = DemoDirect(turns)
            time.sleep(1.5)
            for _ in range(turns):
                samples["simulated CLI, directly"].append(directly())
                samples["simulated CLI through the bridge"].append(client.generate("/generate"))


def measure(rounds: int) -> dict[str, Any]:
    """Run everything; figures, ratios and memory."""
    samples: dict[str, list[float]] = defaultdict(list)
    with lab.stand_in() as url, lab.folder() as work:
        (work / "real").mkdir()
        (work / "demo").mkdir()
        env = lab.real_clis(url, BRIDGE_WARM_PROCESSES=str(READY), BRIDGE_MAX_CONCURRENT="16")
        facts = lab.machine()
        own_part(max(rounds, 30), work / "demo", samples)
        with servers.running(work / "real", env) as real:
            client = lab.Client(real.port, real.new_key("bench"))
            colds = Colds(url, work)
            messages = {
                "model": CLAUDE_MODEL,
                "max_tokens": 100,
                "stream": True,
                "messages": [{"role": "user", "content": "hello"}],
            }
            responses = {"model": CODEX_MODEL, "stream": True, "input": "hello"}
            lab.wait_until_warm(real, READY)
            numbers = itertools.count()
            fresh: list[lab.Client] = []
            arms = {
                "direct, Messages API": lambda: direct(url, "/v1/messages", messages),
                "direct, Responses API": lambda: direct(url, "/v1/responses", responses),
                "claude cold, default flags": colds.claude_default,
                "claude cold, our flags": colds.claude_lean,
                "claude through the bridge": lambda: client.generate("/generate"),
                "claude, same system prompt": lambda: client.generate("/generate", systemPrompt="Be brief."),
                "claude, another system prompt": lambda: client.generate(
                    "/generate", systemPrompt=f"Be {next(numbers)}."
                ),
                "claude, first run of a key": lambda: fresh.pop().generate("/generate"),
                "claude through the bridge, first delta": lambda: client.first_delta("/generate"),
                "claude through the bridge, 50 tools": lambda: client.generate("/generate", tools=TOOLS),
                "codex cold, default flags": colds.codex_default,
                "codex cold, without its analytics": colds.codex_quiet,
                "codex cold, our flags": colds.codex_lean,
                "codex through the bridge": lambda: client.generate("/generate-codex"),
                "codex through the bridge, 50 tools": lambda: client.generate("/generate-codex", tools=TOOLS),
                "codex through the bridge, first delta": lambda: client.first_delta("/generate-codex"),
            }
            for number in range(rounds + 1):
                for name, arm in arms.items():
                    # One request at a time with time between them, as a person sends them: what was
                    # used up is warm again. The rounds with 8 at once come below.
                    lab.wait_until_warm(real, READY)
                    if not fresh:
                        fresh.append(lab.Client(real.port, real.new_key(f"new-{next(numbers)}")))
                    took = arm()
                    if number:  # the first round warms caches of every arm
                        samples[name].append(took)
            memory_idle = lab.memory_mib(real.process.pid)
            for path, name in (("/generate", "claude"), ("/generate-codex", "codex")):
                clients = [lab.Client(real.port, real.new_key(f"bench-{name}-{i}")) for i in range(8)]
                for _ in range(max(4, rounds // 10)):
                    lab.wait_until_warm(real, READY)
                    free_clients = list(clients)
                    samples[f"{name} through the bridge, 8 at once"] += lab.at_once(
                        lambda free=free_clients, p=path: free.pop().generate(p), 8, 1
                    )
                    lab.wait_until_warm(real, READY)
                    free_clients = list(clients)
                    samples[f"{name} through the bridge, first delta, 8 at once"] += lab.at_once(
                        lambda free=free_clients, p=path: free.pop().first_delta(p), 8, 1
                    )
                    samples[f"{name} cold, default flags, 8 at once"] += _colds_at_once(work, url, name)
            figures = {name: lab.Figures.of(name, values) for name, values in samples.items()}
    return {"machine": facts, "figures": figures, "memory_mib_idle": memory_idle}


def _colds_at_once(work: Path, url: str, name: str) -> list[float]:
    colds = [Colds(url, _made(work / f"cold-{i}")) for i in range(8)]
    return lab.at_once(lambda: getattr(colds.pop(), f"{name}_default")(), 8, 1)


def _made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json")
    options = parser.parse_args()
    result = measure(options.rounds)
    figures: dict[str, lab.Figures] = result["figures"]
    rows = [[f.name, f.n, f"{f.median:.1f}", f"{f.p95:.1f}"] for f in figures.values()]
    print(lab.table(["way", "n", "median ms", "p95 ms"], rows))

    def median(name: str) -> float:
        return figures[name].median

    ratios = {
        "claude, hot: bridge / cold default CLI (at most 0.07)": median("claude through the bridge")
        / median("claude cold, default flags"),
        "claude, first run of a key: bridge / cold default CLI (at most 0.15)": median("claude, first run of a key")
        / median("claude cold, default flags"),
        "codex: bridge / cold default CLI (at most 0.08)": median("codex through the bridge")
        / median("codex cold, default flags"),
        "codex: bridge / cold CLI without its analytics": median("codex through the bridge")
        / median("codex cold, without its analytics"),
        "claude, 8 at once: bridge / cold default CLI": median("claude through the bridge, 8 at once")
        / median("claude cold, default flags, 8 at once"),
        "codex, 8 at once: bridge / cold default CLI": median("codex through the bridge, 8 at once")
        / median("codex cold, default flags, 8 at once"),
    }
    added = {
        "the bridge's own part, ms (at most 5)": median("simulated CLI through the bridge")
        - median("simulated CLI, directly"),
        "claude: what 50 tools add, ms (at most 10)": median("claude through the bridge, 50 tools")
        - median("claude through the bridge"),
        "codex: what 50 tools add, ms (at most 10)": median("codex through the bridge, 50 tools")
        - median("codex through the bridge"),
        "claude, hot: bridge - direct call, ms (at most 45)": median("claude through the bridge")
        - median("direct, Messages API"),
        "codex: bridge - direct call, ms": median("codex through the bridge") - median("direct, Responses API"),
    }
    print()
    print(lab.table(["ratio or difference", "value"], [[k, f"{v:.3f}"] for k, v in {**ratios, **added}.items()]))
    print()
    print("memory, idle (MiB):", json.dumps(result["memory_mib_idle"]))
    print("machine:", json.dumps(result["machine"]))
    lab.write_json(
        options.json,
        {
            "machine": result["machine"],
            "figures": {name: vars(f) for name, f in figures.items()},
            "ratios": ratios,
            "differences_ms": added,
            "memory_mib_idle": result["memory_mib_idle"],
        },
    )


if __name__ == "__main__":
    main()
