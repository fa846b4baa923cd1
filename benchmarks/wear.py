"""What runs leave behind: processes, descriptors and memory, by the number of runs. Both real CLIs, one key.

    ./run bench wear [--runs 2000] [--every 100] [--json FILE]

One run after the other, so that the same claude process serves as many of them as it may. Ends with status 1 where
anything has grown that should not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from benchmarks import lab
from benchmarks.soak import House
from tests.support import server as servers

MIB = 2**20
#: a claude process that stands ready is ended above this, in MiB (providers/pool.py)
MOST_CLAUDE_MIB = 400
#: beside what is kept for the key: processes, their folders and connections
KEPT = {"claude processes": 2, "folders of claude": 2, "descriptors": 8}
WARM = 1


@dataclass
class Wear:
    """What came of it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    #: what each claude process had served and took at the end of its life, as far as it was seen
    claudes: dict[int, float] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def wear(runs: int, every: int) -> Wear:
    """Half of the runs on each CLI."""
    result = Wear()
    with lab.stand_in() as url, lab.folder() as work:
        env = lab.real_clis(url, BRIDGE_WARM_PROCESSES=str(WARM), BRIDGE_MAX_CONCURRENT="4")
        server = servers.start(work, env)
        try:
            client = lab.Client(server.port, server.new_key("wear"))
            lab.wait_until_warm(server, WARM)
            for path in ("/generate", "/generate-codex"):
                client.generate(path)
            house, worker = House(server), psutil.Process(lab.worker_pid(server))
            result.before = _at_rest(house, {})
            for number in range(runs):
                client.generate("/generate" if number % 2 else "/generate-codex", f"run {number}")
                if number % every == 0 or number == runs - 1:
                    result.rows.append(_row(number, worker, result))
            client.close()
            result.after = _at_rest(house, result.before)
        finally:
            server.stop()
        result.left = house.left()
    for what, number in result.before.items():
        if result.after[what] > number + KEPT.get(what, 0):
            result.wrong.append(f"{what}: {number} before the runs, {result.after[what]} after them")
    result.wrong += [f"{number} {what} left after the end" for what, number in result.left.items() if number]
    largest = max(result.claudes.values())
    if largest > MOST_CLAUDE_MIB:
        result.wrong.append(f"a claude process grew to {largest:.0f} MiB")
    return result


def _at_rest(house: House, before: dict[str, int]) -> dict[str, int]:
    """What there is once it is no more than before, or when ten seconds have not brought that."""
    deadline = time.monotonic() + 10
    while True:
        time.sleep(1)
        found = house.look()
        grown = [what for what, number in before.items() if found[what] > number + KEPT.get(what, 0)]
        if (before and not grown) or time.monotonic() > deadline:
            return found


def _row(number: int, worker: psutil.Process, result: Wear) -> dict[str, Any]:
    sizes: dict[str, list[float]] = {"claude": [], "codex": []}
    for child in worker.children(recursive=True):
        try:
            command, size = child.cmdline(), child.memory_info().rss / MIB
        except psutil.Error:
            continue
        kind = "claude" if "--input-format" in command else "codex" if "app-server" in command else None
        if kind is not None:
            sizes[kind].append(size)
        if kind == "claude":
            result.claudes[child.pid] = size
    return {
        "runs": number + 1,
        "descriptors": worker.num_fds(),
        "claude processes": len(sizes["claude"]),
        "largest claude, MiB": round(max(sizes["claude"], default=0)),
        "codex, MiB": round(max(sizes["codex"], default=0)),
        "bridge, MiB": round(worker.memory_info().rss / MIB),
    }


def main() -> None:
    """Run, print, and end with status 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100, help="runs between two rows")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    facts = lab.machine()
    result = wear(options.runs, options.every)
    print(lab.table(list(result.rows[0]), [list(row.values()) for row in result.rows]), end="\n\n")
    rows = [[what, number, result.after[what]] for what, number in result.before.items()]
    print(lab.table(["there are", "before the runs", "after them"], rows), end="\n\n")
    print("claude processes, MiB:", ", ".join(f"{size:.0f}" for size in result.claudes.values()))
    print("\n".join(result.wrong) or "Nothing was left behind.")
    print("machine:", json.dumps(facts))
    lab.write_json(options.json, {"machine": facts, **asdict(result)})
    sys.exit(1 if result.wrong else 0)


if __name__ == "__main__":
    main()
