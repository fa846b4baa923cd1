"""How many answers a small machine gives: one core, 1 GB, four clients of one key who ask again at once.

    ./run bench narrow [--seconds 20] [--clients 4] [--limit 1024] [--json FILE]

The bridge and its CLIs get one core and a control group of that many MiB (needs root, or a delegated group); the
stand-in and the clients use the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import threading
import time
from typing import Any

from benchmarks import lab
from benchmarks.cgroup import MemoryGroup
from tests.real_cli.install import binaries
from tests.support import server as servers

MIB = 2**20
#: path and at least so many answers a second
WANTED = {"claude": ("/generate", 8.0), "codex": ("/generate-codex", 15.0)}


def measure(seconds: float, clients: int, limit_mib: int) -> list[dict[str, Any]]:
    """A row for each CLI."""
    cores, found, rows = os.sched_getaffinity(0), binaries(), []
    one = {min(cores)}
    with MemoryGroup(limit_mib * MIB) as group, lab.stand_in() as url, lab.folder() as work:
        with group.inside():
            # Copies, so that the pages of the programs count as on a machine of that size.
            programs = {"BRIDGE_CLAUDE_COMMAND": found.claude, "BRIDGE_CODEX_COMMAND": found.codex}
            clis = {name: str(shutil.copy2(path, work / name)) for name, path in programs.items()}
            os.sched_setaffinity(0, one)
            try:
                server = servers.start(work, {**lab.real_clis(url), **clis})
            finally:
                os.sched_setaffinity(0, cores)
        try:
            os.sched_setaffinity(0, cores - one or cores)
            key = server.new_key("bench")
            lab.wait_until_warm(server, 1)
            for name, (path, least) in WANTED.items():
                took = _load(server, key, path, clients, seconds)
                figures = lab.Figures.of(name, took)
                rate = len(took) / seconds
                rows.append(
                    {
                        "CLI": name,
                        "answers a second": round(rate, 1),
                        "wanted": f"at least {least:g}",
                        "reached": "yes" if rate >= least else "NO",
                        "median ms": round(figures.median),
                        "p95 ms": round(figures.p95),
                        "most MiB": round(group.kept / MIB),
                        "killed": group.killed,
                    }
                )
        finally:
            os.sched_setaffinity(0, cores)
            server.stop()
    return rows


def _load(server: servers.Server, key: str, path: str, clients: int, seconds: float) -> list[float]:
    """Milliseconds of all answers; the first of each client is not counted."""
    took: list[float] = []
    begin = threading.Barrier(clients)

    def client() -> None:
        one = lab.Client(server.port, key)
        one.generate(path)
        begin.wait()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            took.append(one.generate(path))
        one.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of load, for each CLI")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--limit", type=int, default=1024, metavar="MIB")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    facts = lab.machine()
    rows = measure(options.seconds, options.clients, options.limit)
    print(lab.table(list(rows[0]), [list(row.values()) for row in rows]), end="\n\n")
    print("machine:", json.dumps(facts))
    lab.write_json(options.json, {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
