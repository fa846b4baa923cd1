"""How many answers there are in a second: through the bridge, and from the same CLIs without it. One run, in turns.

    ./run bench throughput [--seconds 10] [--rounds 3] [--clients 1 8 32] [--one-key]
        [--peer URL --peer-key KEY [--peer-model NAME]] [--json FILE]

Each client sends its next request as soon as it has its answer. The model is a loopback stand-in that answers at
once, so this is what the host bears when nobody ever waits for a model: CLIs that boot share its cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks import lab
from benchmarks.cold import Colds
from bridge.providers.pool import slots, warm_processes
from bridge.settings import Settings
from tests.support import server as servers

MakePeer = Callable[[], Callable[[], float]]
PATHS = {"claude": "/generate", "codex": "/generate-codex"}
#: at least so many times as many answers in a second as without the bridge
RATIOS = {"claude": 10.0, "codex": 10.0}
#: at so many clients the slowest answers (p95) take at most so many times as long as the median
EVEN_AT, EVEN = 8, 2.0


@dataclass
class Arm:
    """What one way has done with one number of clients, over all its turns."""

    took_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers in a second."""
        return len(self.took_ms) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Processor time for one answer, without the stand-in's and the clients' own."""
        return 1000 * self.cpu_s / len(self.took_ms)

    def turn(self, calls: Sequence[Callable[[], float]], seconds: float, cpu: Callable[[], float]) -> None:
        """Let clients call one after the other for `seconds`; what has begun then is finished, and counts."""
        began, cpu_before = time.perf_counter(), cpu()

        def client(call: Callable[[], float]) -> None:
            while time.perf_counter() < began + seconds:
                self.took_ms.append(call())

        threads = [threading.Thread(target=client, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds += time.perf_counter() - began
        self.cpu_s += cpu() - cpu_before


def of_the_bridge(server: servers.Server) -> Callable[[], float]:
    """Processor time of a bridge, with the CLIs that have ended or run now, in seconds."""
    processes = psutil.Process(server.process.pid).children()

    def used() -> float:
        (worker,) = processes
        times = [worker.cpu_times(), *(child.cpu_times() for child in worker.children(recursive=True))]
        return sum(each.user + each.system for each in times) + times[0].children_user + times[0].children_system

    return used


def of_children() -> float:
    """Processor time of the children of this process that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Peer:
    """Calls of another proxy with the shape of OpenAI's chat completions, on a kept connection."""

    def __init__(self, url: str, key: str, model: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=300)
        self._path = f"{parts.path.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})

    def __call__(self) -> float:
        def call() -> None:
            self._connection.request("POST", self._path, self._body, self._headers)
            answer = self._connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body

        return lab.timed(call)


def measure(
    seconds: float, rounds: int, numbers: Sequence[int], *, one_key: bool = False, make_peer: MakePeer | None = None
) -> dict[str, Any]:
    """Run everything. `one_key`: all clients share a key; `make_peer` makes a client of another proxy."""
    arms: dict[tuple[str, int, str], Arm] = defaultdict(Arm)
    # As it is without any settings: slots and warm processes by the host's cores and memory.
    settings = Settings.load({})
    warm = warm_processes(settings)
    with lab.stand_in() as url, lab.folder() as work, servers.running(work, lab.real_clis(url)) as server:
        facts = lab.machine()
        keys = [server.new_key(f"bench-{number}") for number in range(1 if one_key else max(numbers))]
        keys *= max(numbers) if one_key else 1
        colds = [Colds(url, _made(work / f"cold-{number}"), keep_home=True) for number in range(max(numbers))]
        cpu = of_the_bridge(server)
        for _ in range(rounds):
            for name, path in PATHS.items():
                for number in numbers:
                    clients = [lab.Client(server.port, key) for key in keys[:number]]
                    lab.wait_until_warm(server, warm)
                    through = [lambda client=client, path=path: client.generate(path) for client in clients]
                    arms[name, number, "bridge"].turn(through, seconds, cpu)
                    lab.wait_until_warm(server, warm)
                    cold = [getattr(each, f"{name}_default") for each in colds[:number]]
                    arms[name, number, "cold"].turn(cold, seconds, of_children)
            for number in numbers if make_peer is not None else ():
                arms["peer", number, "peer"].turn([make_peer() for _ in range(number)], seconds, lambda: 0.0)
    return {"machine": facts, "slots": slots(settings), "warm": warm, "arms": arms}


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def targets(arms: dict[tuple[str, int, str], Arm]) -> dict[str, tuple[float, str, bool]]:
    """What is to be reached: (measured, wanted, whether it is)."""
    found = {}
    for name, number, way in arms:
        if way == "bridge":
            ratio = arms[name, number, "bridge"].per_second / arms[name, number, "cold"].per_second
            least = RATIOS[name]
            found[f"{name}, {number} at once: bridge / cold"] = (ratio, f"at least {least:g}", ratio >= least)
            if number == EVEN_AT:
                figures = lab.Figures.of("", arms[name, number, way].took_ms)
                spread = figures.p95 / figures.median
                found[f"{name}, {number} at once: p95 / median"] = (spread, f"at most {EVEN:g}", spread <= EVEN)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--one-key", action="store_true", help="all clients share a key; else each has its own")
    parser.add_argument("--peer", metavar="URL", help="of another proxy, with its /v1, in front of a model of its own")
    parser.add_argument("--peer-key", default="", metavar="KEY")
    parser.add_argument("--peer-model", default="gpt-6-sol", metavar="NAME")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    make_peer = None
    if options.peer:
        make_peer = partial(Peer, options.peer, options.peer_key, options.peer_model)
    result = measure(options.seconds, options.rounds, options.clients, one_key=options.one_key, make_peer=make_peer)
    arms: dict[tuple[str, int, str], Arm] = result["arms"]
    rows = []
    for (name, number, way), arm in arms.items():
        figures = lab.Figures.of(f"{name}, {number} at once, {way}", arm.took_ms)
        spread = [f"{figures.median:.0f}", f"{figures.p95:.0f}"]
        rows.append([figures.name, figures.n, f"{arm.per_second:.2f}", *spread, f"{arm.cpu_ms:.0f}"])
    print(lab.table(["way", "n", "answers per second", "median ms", "p95 ms", "CPU ms each"], rows), end="\n\n")
    reached = targets(arms)
    lines = [[what, f"{value:.2f}", wanted, "yes" if good else "NO"] for what, (value, wanted, good) in reached.items()]
    print(lab.table(["target", "measured", "wanted", "reached"], lines), end="\n\n")
    print(f"slots: {result['slots']}, warm claude processes: {result['warm']}")
    print("machine:", json.dumps(result["machine"]))
    lab.write_json(
        options.json,
        {
            **result,
            "arms": [
                dict(zip(("way", "n", "per_second", "median_ms", "p95_ms", "cpu_ms"), r, strict=True)) for r in rows
            ],
            "targets": {what: {"measured": v, "wanted": w, "reached": g} for what, (v, w, g) in reached.items()},
        },
    )


if __name__ == "__main__":
    main()
