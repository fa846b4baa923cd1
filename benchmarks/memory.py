"""How much memory the whole service takes: the bridge, what it keeps warm, and four runs at once.

    ./run bench memory [--warm 0 1 2 4] [--limit MIB ...] [--seconds 30] [--json FILE]

With `--limit`, it runs under load in a control group with so much memory and its automatic settings (or those that
are set in the environment), and it is said whether that was enough. The CLIs are copied first, so that the pages of
their programs count, too, as on a machine of that size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import lab
from benchmarks.cgroup import MemoryGroup
from tests.real_cli.install import binaries
from tests.support import server as servers

RUNS = 4
#: an answer of six seconds
SLOW = "[[standin size=6000 deltas=60 delay=0.1]]"
#: and one of a second and a half
SHORT = "[[standin size=6000 deltas=15 delay=0.1]]"
SETTINGS = ("BRIDGE_MAX_CONCURRENT", "BRIDGE_WARM_PROCESSES", "BRIDGE_QUEUE_LIMIT")
MIB = 2**20


def by_warm(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """For each number of warm processes what the service takes idle, and with four runs, in MiB."""
    rows = []
    with lab.stand_in() as url:
        for number in numbers:
            settings = {"BRIDGE_MAX_CONCURRENT": str(RUNS), "BRIDGE_WARM_PROCESSES": str(number)}
            with lab.folder() as work, servers.running(work, lab.real_clis(url, **settings)) as server:
                key = server.new_key("bench")
                for path in ("/generate", "/generate-codex"):
                    _ask(server, key, path, "hello")
                lab.wait_until_warm(server, number)
                time.sleep(3)  # what a process does two seconds after its start
                rows.append(
                    {
                        "warm": number,
                        **_named("idle", _memory(server)),
                        **_named("4 claude runs", _under(server, key, "/generate")),
                        **_named("4 codex runs", _under(server, key, "/generate-codex")),
                        "files_mib": _files_mib(server),
                    }
                )
    return rows


def _named(what: str, found: dict[str, float]) -> dict[str, float]:
    return {f"{what}, {name}": value for name, value in found.items()}


def _memory(server: servers.Server) -> dict[str, float]:
    found = lab.memory_mib(server.process.pid)
    return {
        "bridge PSS": found["bridge_pss"],
        "CLIs PSS": found["children_pss"],
        "PSS": round(found["bridge_pss"] + found["children_pss"], 1),
        "RSS": round(found["bridge_rss"] + found["children_rss"], 1),
        "CLIs": found["children"],
    }


def _under(server: servers.Server, key: str, path: str) -> dict[str, float]:
    """The most that four runs at once take."""
    threads = [threading.Thread(target=_ask, args=(server, key, path, SLOW)) for _ in range(RUNS)]
    for thread in threads:
        thread.start()
    most: dict[str, float] = {"PSS": 0.0}
    while any(thread.is_alive() for thread in threads):
        most = max(most, _memory(server), key=lambda each: each["PSS"])
        time.sleep(0.2)
    return most


def _ask(server: servers.Server, key: str, path: str, prompt: str) -> str:
    """`ok`, or the code of the error."""
    answer = server.call("POST", path, {"userPrompt": prompt}, key=key, timeout_s=300)
    return "ok" if answer.status == 200 else str(answer.json["code"])


def _files_mib(server: servers.Server) -> float:
    """The CLIs' files, which lie in memory."""
    (worker,) = psutil.Process(server.process.pid).children()
    home = next(child.environ()["HOME"] for child in worker.children() if "app-server" in child.cmdline())
    files = [path for path in Path(home).parent.rglob("*") if path.is_file() and not path.is_symlink()]
    return round(sum(path.stat().st_blocks * 512 for path in files) / MIB, 1)


def within(limit_mib: int, seconds: float) -> dict[str, Any]:
    """Under load with `limit_mib` MiB for the service and its CLIs: what came of it."""
    given = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    with MemoryGroup(limit_mib * MIB) as group, lab.stand_in() as url, lab.folder() as work:
        with group.inside():
            clis = {name: str(shutil.copy2(path, work / name)) for name, path in _programs().items()}
            server = servers.start(work, {**lab.real_clis(url, **given), **clis})
        try:
            time.sleep(5)  # all that is kept warm has started
            overview, idle = server.admin("GET", "/overview").json, group.kept
            keys = [server.new_key(f"bench-{number}") for number in range(2 * overview["slots"])]
            before = group.read_again
            codes, took_ms, kept = _load(server, keys, seconds, lambda: group.kept)
            return {
                "limit MiB": limit_mib,
                "slots": overview["slots"],
                "warm": max(each["warm"] for each in overview["providers"] if each["name"] == "claude"),
                "idle MiB": round(idle / MIB),
                "most MiB": round(kept / MIB),
                "read again MiB": round((group.read_again - before) / MIB),
                "killed": group.killed,
                **{f"{name}, median ms": round(statistics.median(each)) for name, each in took_ms.items()},
                "answers": dict(codes),
            }
        finally:
            server.stop()


def _programs() -> dict[str, Path]:
    found = binaries()
    return {"BRIDGE_CLAUDE_COMMAND": found.claude, "BRIDGE_CODEX_COMMAND": found.codex}


def _load(
    server: servers.Server, keys: Sequence[str], seconds: float, kept: Callable[[], int]
) -> tuple[Counter[str], dict[str, list[float]], int]:
    """A client for each key, half of them for each CLI; (answers by code, milliseconds by CLI, most bytes)."""
    codes: Counter[str] = Counter()
    took_ms: dict[str, list[float]] = {"claude": [], "codex": []}
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        name, path = (("claude", "/generate"), ("codex", "/generate-codex"))[number % 2]
        while time.monotonic() < until:
            began = time.monotonic()
            codes[_ask(server, keys[number], path, SHORT)] += 1
            took_ms[name].append(1000 * (time.monotonic() - began))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(keys))]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, kept())
        time.sleep(0.1)
    return codes, took_ms, most


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=int, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--limit", type=int, nargs="*", default=[], metavar="MIB")
    parser.add_argument("--seconds", type=float, default=30, help="of load within a limit")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    facts = lab.machine()
    rows = by_warm(options.warm)
    limited = [within(limit, options.seconds) for limit in options.limit]
    for table in (rows, limited):
        if table:
            print(lab.table(list(table[0]), [list(row.values()) for row in table]), end="\n\n")
    print("machine:", json.dumps(facts))
    lab.write_json(options.json, {"machine": facts, "by_warm": rows, "limited": limited})


if __name__ == "__main__":
    main()
