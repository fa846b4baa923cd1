"""A mixed load of all that can happen, and whether everything that must hold did. Both real CLIs, a real server.

    ./run bench soak [--seconds 60 | --runs N] [--clients 8] [--interval SECONDS] [--json FILE] [--hostile]

The models are a loopback stand-in, which hangs, fails and breaks off where it is told to. Ends with status 1 if
a client got something wrong, if anything was left running, or if the ledger and the stand-in disagree.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import lab, soak_books, soak_hostile
from benchmarks.soak_load import BUSY, Client, Done, under_load
from tests.support import server as servers

#: fewer slots than clients, so that some of them wait
SLOTS, WARM, KEYS = 6, 2, 4
#: what is kept for the next run of a key: processes, and for each its folder, its connection and one to its model
KEPT = {"claude processes": SLOTS, "folders of claude": SLOTS, "descriptors": 2 * (SLOTS + WARM)}
#: the longest that a number of runs may take, in seconds
LONGEST_S = 1800.0
#: after the load, for everything to come to rest, in seconds
REST_S = 60.0


@dataclass
class Soak:
    """What came of it."""

    done: list[Done] = field(default_factory=list)
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    books: soak_books.Books = field(default_factory=soak_books.Books)
    stopped_after_s: list[float] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    after_load: dict[str, int] = field(default_factory=dict)
    after_end: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class House:
    """The processes, descriptors and files of a running bridge."""

    def __init__(self, server: servers.Server) -> None:
        self._arbiter = psutil.Process(server.process.pid)
        (self._worker,) = self._arbiter.children()
        (app_server,) = [child for child in self._worker.children() if _kind(child) == "codex"]
        self.scratch = Path(app_server.environ()["HOME"]).parent

    def look(self) -> dict[str, int]:
        """How many there are of what should not grow. Pipes of a CLI that lives belong to it."""
        children = self._worker.children(recursive=True)
        kinds = Counter(_kind(child) for child in children)
        folders = Counter(path.name.split("-")[0] for path in self.scratch.iterdir())
        return {
            "claude processes": kinds["claude"],
            "codex processes": kinds["codex"],
            "other processes": kinds["other"],
            "zombies": kinds["zombie"],
            "descriptors": self._worker.num_fds() - 3 * len(children),
            "folders of claude": folders.pop("claude", 0),
            "other folders and files": sum(folders.values()),
        }

    def left(self) -> dict[str, int]:
        """What has outlived the server."""
        mine = [process for process in psutil.process_iter() if self._is_mine(process)]
        return {"processes": len(mine), "folders of files": int(self.scratch.exists())}

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            return str(self.scratch) in process.environ().get("HOME", "")
        except psutil.Error:
            return False


def _kind(child: psutil.Process) -> str:
    try:
        if child.status() == psutil.STATUS_ZOMBIE:
            return "zombie"
        command = child.cmdline()
    except psutil.Error:
        return "zombie"
    if "--input-format" in command:
        return "claude"
    return "codex" if "app-server" in command else "other"


def soak(seconds: float, number: int, interval_s: float, runs: int | None = None) -> Soak:
    """Run everything; with `runs`, so many things are done, within `seconds`."""
    most = math.inf if runs is None else math.ceil(runs / number)
    result = Soak()
    settings = {"BRIDGE_MAX_CONCURRENT": str(SLOTS), "BRIDGE_WARM_PROCESSES": str(WARM), "BRIDGE_QUEUE_LIMIT": "256"}
    with lab.stand_in() as url, lab.folder() as work:
        server = servers.start(work, lab.real_clis(url, **settings))
        try:
            keys = [server.new_key(f"soak-{number}") for number in range(KEYS)]
            clients = [Client(number, server, keys[number % KEYS]) for number in range(number)]
            _once_each(clients[0])
            house = House(server)
            result.before = _at_rest(server, house, lambda found: found["claude processes"] == WARM)
            began, sampled = time.monotonic(), -interval_s
            for passed in under_load(clients, seconds, most):
                if passed >= sampled + interval_s:
                    sampled = passed
                    result.rows.append(_row(passed, server, clients))
            result.seconds = time.monotonic() - began
            result.done = [done for client in clients for done in client.done]
            result.after_load = _at_rest(server, house, lambda found: _no_more(found, result.before))
            _read_books(result, server, url)
        finally:
            status = server.stop()
        result.after_end = house.left()
        if status:
            result.wrong.append(f"the server ended with status {status}: {server.output[-3:]}")
    _judge(result)
    return result


def _once_each(client: Client) -> None:
    """So that what is opened once for good is open before anything is counted."""
    for kind in (client.answer, client.schema):
        for path in ("/generate", "/generate-codex"):
            client.prepare(path)
            kind()


def _at_rest(server: servers.Server, house: House, wanted: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """What there is once no run is left and all is as `wanted`, or when that has not come."""
    deadline = time.monotonic() + REST_S
    while True:
        idle = not server.admin("GET", "/runs").json["runs"]
        found = house.look()
        if (idle and wanted(found)) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _no_more(found: dict[str, int], before: dict[str, int]) -> bool:
    return all(found[what] <= number + KEPT.get(what, 0) for what, number in before.items())


def _row(passed: float, server: servers.Server, clients: Sequence[Client]) -> dict[str, Any]:
    overview = server.admin("GET", "/overview").json
    return {
        "second": round(passed),
        "done": sum(len(client.done) for client in clients),
        "running": overview["running"],
        "queued": overview["queued"],
        **lab.memory_mib(server.process.pid),
    }


def _read_books(result: Soak, server: servers.Server, url: str) -> None:
    lines, before = [], ""
    while True:
        page = server.admin("GET", f"/logs?limit=1000{before}").json
        lines += page["logs"]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    with urllib.request.urlopen(f"{url}/__requests") as answer:
        calls = json.load(answer)
    generations = [call for call in calls if call["generates"]]
    result.books = soak_books.compare(lines, generations, server.admin("GET", "/usage?days=2").json["usage"])
    result.wrong += [f"side traffic: {call['method']} {call['path']}" for call in calls if not call["generates"]]
    reserved = server.admin("GET", "/overview").json["totals"]["reserved"]
    if any(reserved.values()):
        result.wrong.append(f"still reserved although nothing runs: {reserved}")
    left_at = {done.tag: done.at for done in result.done if done.code == "left"}
    ends = [(soak_books.tag_of(call["text"]), call["time"] + call["seconds"]) for call in generations]
    result.stopped_after_s = sorted(max(0.0, end - left_at[tag]) for tag, end in ends if tag in left_at)


def _judge(result: Soak) -> None:
    result.wrong += [f"{done.kind}, {done.provider}: {done.wrong}" for done in result.done if done.wrong]
    result.wrong += result.books.wrong
    for what, number in result.before.items():
        if result.after_load[what] > number + KEPT.get(what, 0):
            result.wrong.append(f"{what}: {number} before the load, {result.after_load[what]} after it")
    result.wrong += [f"{number} {what} left after the end" for what, number in result.after_end.items() if number]


def show(result: Soak) -> None:
    """Print everything."""
    answers = sum(done.code == "ok" for done in result.done)
    print(f"{len(result.done)} requests in {result.seconds:.0f} s, {len(result.done) / result.seconds:.1f} a second;")
    print(f"{answers} of them answered, {answers / result.seconds:.1f} a second", end="\n\n")
    counted = Counter((done.kind, done.provider, done.code) for done in result.done)
    print(
        lab.table(["what", "provider", "code", "times"], [[*key, n] for key, n in sorted(counted.items())]), end="\n\n"
    )
    print(lab.table(list(result.rows[0]), [list(row.values()) for row in result.rows]), end="\n\n")
    print(
        lab.table(
            ["there are", "before the load", "after it"],
            [[what, number, result.after_load[what]] for what, number in result.before.items()],
        ),
        end="\n\n",
    )
    print("left after the end:", json.dumps(result.after_end), end="\n\n")
    print(lab.table(["model", "answered in full", "ledger", "stand-in", "equal"], result.books.rows), end="\n\n")
    print("broken off or failed:", json.dumps(result.books.broken_off))
    if result.stopped_after_s:
        slowest, median = result.stopped_after_s[-1], statistics.median(result.stopped_after_s)
        print(f"calls of a model whose client left ended {median:.2f} s later (median), {slowest:.2f} s (slowest)")
    busy = sum(done.code in BUSY for done in result.done)
    print(f"turned away because the bridge was busy: {busy}", end="\n\n")
    if result.wrong:
        print(f"{len(result.wrong)} things are wrong:")
        print("\n".join(f"- {each}" for each in result.wrong[:50]))
    else:
        print("All that must hold, holds.")


def main() -> None:
    """Run, print, and end with status 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of load; what has begun then is finished")
    parser.add_argument("--runs", type=int, help="instead: so many things are done, in at most half an hour")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--interval", type=float, help="between two rows, in seconds; default: a twelfth of the load")
    parser.add_argument("--json", metavar="FILE", help="write everything there, too")
    parser.add_argument("--hostile", action="store_true", help="instead: a hostile key beside three honest ones")
    options = parser.parse_args()
    facts = lab.machine()
    if options.hostile:
        found = soak_hostile.run(options.seconds)
        soak_hostile.show(found)
        print("machine:", json.dumps(facts))
        lab.write_json(options.json, {"machine": facts, **asdict(found), "slower": found.slower})
        sys.exit(1 if found.wrong else 0)
    seconds = options.seconds if options.runs is None else LONGEST_S
    result = soak(seconds, options.clients, options.interval or options.seconds / 12, options.runs)
    show(result)
    print("machine:", json.dumps(facts))
    lab.write_json(
        options.json,
        {
            "machine": facts,
            **vars(result),
            "done": [vars(done) for done in result.done],
            "books": vars(result.books),
        },
    )
    sys.exit(1 if result.wrong else 0)


if __name__ == "__main__":
    main()
