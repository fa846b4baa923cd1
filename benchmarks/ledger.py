"""What the books cost: admission and settlement on this disk, authentication, start-up, memory. One run.

    ./run bench ledger [--seconds 9] [--json FILE]
    ./run bench ledger --store redis     several nodes on a redis-server that waits for the disk with each write

It works in a folder below the current one, which should lie on the disk that a server would use.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import secrets
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec
import psutil
from flask import Flask

from benchmarks import lab
from bridge.clock import Clock, day_of
from bridge.http.context import require_key
from bridge.keys.keys import Key, KeyBook, KeyHash, hash_of, to_disk
from bridge.ledger.ledger import Ceiling, Ledger
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import Counts, Figures, FileTallies, Import, Reservation, Reserve, Settle, apply
from bridge.limits import Limits
from bridge.store.document import Document
from bridge.store.folder import Store
from bridge.store.journal import encode
from tests.support.ledger import line_of
from tests.support.redis import redis_server

PROVIDER, MODEL = "claude", "claude-sonnet-5-5"
CLIENTS = (1, 8, 32)
KEYS = (10, 1_000, 10_000)
REQUEST, FIND = "authentication of a request", "finding a key in a loop"
JOURNAL_LINES = 200_000
USED_KEYS, USED_DAYS = 1_000, 90
#: To reach: the median admission at 8 clients in milliseconds, and authentication with most keys to that with fewest.
ADMISSION_MS, KEYS_RATIO = 3.0, 1.5
#: Every cap that is looked at, and none that is reached.
LIMITS = Limits.parse(
    {
        "maxRequestsPerMinute": 0,
        "maxConcurrent": 0,
        "maxRequestsPerDay": 10**9,
        "maxTokensPerDay": 10**11,
        "maxCostPerDay": 10**6,
        "maxCostPerMonth": 10**6,
    }
)


class Books:
    """Keys and ledger on a data folder, put together as the service does."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = Store.open(folder)
        self.keys = KeyBook(Document(folder / "keys.json"), self.clock)
        prices = PriceTable(folder / "prices.json", self.clock)
        self.tallies = FileTallies(self.store, self.clock, UTC)
        self.ledger = Ledger(self.tallies, self.clock, UTC, {}, prices)
        self.ledger.recover()
        self.tallies.save()

    def close(self) -> None:
        self.ledger.close()
        self.store.close()


@contextmanager
def opened(folder: Path) -> Iterator[Books]:
    """The books for the length of a block."""
    books = Books(folder)
    try:
        yield books
    finally:
        books.close()


# --- the disk ------------------------------------------------------------------------------------


def fdatasync(folder: Path, times: int = 300) -> lab.Figures:
    """What a write of one line costs that waits for the disk: nothing durable can be faster."""
    line = b"x" * 300 + b"\n"
    with (folder / "fdatasync").open("wb", buffering=0) as file:

        def step() -> None:
            file.write(line)
            os.fdatasync(file.fileno())

        return lab.Figures.of("write and fdatasync of a line", [lab.timed(step) for _ in range(times)])


# --- admission and settlement ----------------------------------------------------------------------


def runs(folder: Path, seconds: float) -> tuple[list[lab.Figures], dict[int, float]]:
    """Figures of each step of a run by clients at once, and runs per second. Turn by turn, so that a
    disk that gets slower does so for all."""
    samples: dict[str, list[float]] = defaultdict(list)
    counted: dict[int, int] = defaultdict(int)
    rounds = 3
    turn_s = seconds / rounds / len(CLIENTS)
    with opened(folder) as books:
        keys = [books.keys.create(f"key-{number}", LIMITS)[0] for number in range(max(CLIENTS))]
        _work(books, keys[:4], 0.2, defaultdict(list))  # files made, caches filled
        samples["fdatasync for a run, 1 at once (how many)"] = [_syncs(books, keys[0])]
        for _ in range(rounds):
            for clients in CLIENTS:
                counted[clients] += _work(books, keys[:clients], turn_s, samples)
    figures = [lab.Figures.of(name, values) for name, values in samples.items()]
    return figures, {clients: number / (rounds * turn_s) for clients, number in counted.items()}


def _syncs(books: Books, key: Key) -> float:
    """How often the disk is waited for in a run, by one client."""
    calls: list[int] = []
    real = os.fdatasync
    os.fdatasync = lambda fd: (calls.append(fd), real(fd))[1]  # type: ignore[assignment,func-returns-value]
    try:
        done = _work(books, [key], 0.2, defaultdict(list))
    finally:
        os.fdatasync = real
    return len(calls) / done


def _work(books: Books, keys: list[Key], seconds: float, samples: dict[str, list[float]]) -> int:
    """Clients that do one run after the other, without a CLI in between; how many they did."""
    until = time.perf_counter() + seconds
    names = [f"{step}, {len(keys)} at once" for step in ("admission", "settlement with its log line")]

    def client(key: Key) -> int:
        done = 0
        while time.perf_counter() < until:
            marks = [time.perf_counter()]
            run_id = f"run_{secrets.token_hex(13)}"
            reservation = books.ledger.reserve(key.name, key.limits, run_id, Ceiling(PROVIDER, MODEL, 500, 8192))
            marks.append(time.perf_counter())
            books.ledger.settle(line_of(reservation, 2_000, input_tokens=120, output_tokens=180))
            marks.append(time.perf_counter())
            for name, began, ended in zip(names, marks, marks[1:], strict=False):
                samples[name].append(1000 * (ended - began))
            done += 1
        return done

    return sum(each.value for each in gevent.joinall([gevent.spawn(client, key) for key in keys], raise_error=True))


# --- authentication --------------------------------------------------------------------------------


def authentication(folder: Path, rounds: int = 200, finds: int = 100) -> list[lab.Figures]:
    """What authentication costs, in milliseconds, by how many keys there are. In turns.

    First as a request pays for it, from its headers to its key. Then only finding the key, over and over:
    there, few keys stay in the CPU's own caches, and many do not.
    """
    books = {count: _key_book(folder / f"keys-{count}.json", count) for count in KEYS}
    samples: dict[str, list[float]] = {_named(what, count): [] for what in (REQUEST, FIND) for count in KEYS}
    app = Flask(__name__)
    for _ in range(rounds):
        for count, (book, raws) in books.items():
            app.extensions["bridge"] = SimpleNamespace(service=SimpleNamespace(keys=book))
            for raw in random.choices(raws, k=5):
                with app.test_request_context(headers={"Authorization": f"Bearer {raw}"}):
                    samples[_named(REQUEST, count)].append(lab.timed(require_key))
            # Copies, as fresh as a header that has just been read.
            chosen = [raw.encode().decode() for raw in random.choices(raws, k=finds)]
            took_ms = lab.timed(lambda book=book, chosen=chosen: [book.find(raw) for raw in chosen])
            samples[_named(FIND, count)].append(took_ms / finds)
    return [lab.Figures.of(name, values) for name, values in samples.items()]


def _named(what: str, keys: int) -> str:
    return f"{what}, {keys:,} keys"


def _key_book(path: Path, count: int) -> tuple[KeyBook, list[str]]:
    raws = [f"cb_{secrets.token_urlsafe(32)}" for _ in range(count)]
    keys = [Key(f"key-{number}", (KeyHash(hash_of(raw)),), LIMITS, time.time()) for number, raw in enumerate(raws)]
    document = Document(path)
    document.save({"keys": [to_disk(key) for key in keys]})
    return KeyBook(document, Clock()), raws


# --- start-up and memory, each in a fresh process ----------------------------------------------------


def start_up(folder: Path) -> dict[str, float]:
    """Seconds to open a folder whose journal has grown without a snapshot, which takes a broken disk."""
    Store.open(folder).close()
    (folder / "logs").mkdir()
    path = folder / "logs" / f"{day_of(Clock().now(), UTC)}.jsonl"
    path.write_bytes(b"".join(_journal()))
    size = path.stat().st_size
    took_ms = _in_a_process(_open_and_close, folder)
    with opened(folder) as books:
        held = books.ledger.totals()["reserved"]["requests"]
        counted = sum(row["requests"] for row in books.ledger.history(400))
    assert (held, counted) == (0, JOURNAL_LINES // 2)
    return {"lines": JOURNAL_LINES, "mib": round(size / 2**20, 1), "seconds": round(took_ms / 1000, 2)}


def _journal() -> Iterator[bytes]:
    now = Clock().now()
    for number in range(JOURNAL_LINES // 2):
        at = now - 86400.0 * (number % 30)
        day = day_of(at, UTC)
        name, run_id = f"key-{number % 100}", f"run_{number:026d}"
        reservation = Reservation(run_id, name, PROVIDER, MODEL, at, day, 500, 8192, 83_920)
        yield encode(2 * number + 1, msgspec.json.encode(Reserve(reservation)))
        line = line_of(reservation, 2_000, input_tokens=120, output_tokens=180)
        yield encode(2 * number + 2, msgspec.json.encode(Settle(*msgspec.structs.astuple(line), day=day)))


def _open_and_close(folder: Path) -> float:
    books: list[Books] = []
    took_ms = lab.timed(lambda: books.append(Books(folder)))
    books[0].close()
    return took_ms


def memory(folder: Path) -> dict[str, float]:
    """What the usage of many keys over months takes, and what it costs to save."""
    figures = Figures()
    counts = Counts(100, 1, 12_000, 50_000, 3_000, 18_000, 900, 200_000, 1_000)
    days = [(date(2026, 1, 1) + timedelta(number)).isoformat() for number in range(USED_DAYS)]
    for name in (f"key-{number}" for number in range(USED_KEYS)):
        for day in days:
            apply(figures, Import(name, day, counts))
    (folder / "empty").mkdir()
    Store.open(folder / "used").close()
    Document(folder / "used" / "usage.json").save({"seq": 0, "tallies": figures.tallies})
    empty, used = (_in_a_process(_resident_and_stall, folder / name) for name in ("empty", "used"))
    return {
        "keys": USED_KEYS,
        "days": USED_DAYS,
        "rss_growth_mib": round(used["rss_mib"] - empty["rss_mib"], 1),
        "rss_empty_mib": round(empty["rss_mib"], 1),
        "usage_json_mib": round((folder / "used" / "usage.json").stat().st_size / 2**20, 1),
        "start_seconds": round(used["start_s"], 2),
        "snapshot_ms": round(used["snapshot_ms"], 1),
        "longest_stall_ms": round(used["stall_ms"], 1),
    }


def _resident_and_stall(folder: Path) -> dict[str, float]:
    """Memory of a process with the books open; and while a snapshot is saved, how long nothing else ran."""
    books: list[Books] = []
    start_ms = lab.timed(lambda: books.append(Books(folder)))
    gc.collect()
    rss = psutil.Process().memory_info().rss
    gaps = [0.0]

    def tick() -> None:
        while True:
            gaps.append(lab.timed(lambda: gevent.sleep(0.001)))

    ticker = gevent.spawn(tick)
    gevent.sleep(0.05)
    snapshot_ms = lab.timed(books[0].tallies.save)
    gevent.sleep(0.05)
    ticker.kill()
    books[0].close()
    return {"rss_mib": rss / 2**20, "start_s": start_ms / 1000, "snapshot_ms": snapshot_ms, "stall_ms": max(gaps)}


def _in_a_process(call: Any, folder: Path) -> Any:
    """Run in a process that has done nothing before, so that nobody's leavings are measured."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, folder).result()


# --- several nodes on one Redis ------------------------------------------------------------------------

#: Nodes, clients of each, whether all of them use one key, and the least runs a second and node.
SHARED = ((1, 8, False, 250.0), (1, 64, False, 600.0), (2, 8, False, 250.0), (4, 8, True, 25.0))


def shared(folder: Path, seconds: float) -> list[list[str]]:
    """A row for each case: what a node does in a second, and what its admissions take, in milliseconds."""
    rows = []
    with redis_server(folder / "redis", always=True) as server:
        for number, (nodes, clients, one_key, least) in enumerate(SHARED):
            url = server.found(number)
            places = [folder / f"{number}-{name}" for name in "abcd"[:nodes]]
            with ProcessPoolExecutor(nodes, mp_context=multiprocessing.get_context("spawn")) as pool:
                begun = [pool.submit(_node, url, place, clients, one_key, seconds) for place in places]
                done = [each.result() for each in begun]
            rate = sum(len(each) for each in done) / seconds / nodes
            took = lab.Figures.of("", [ms for each in done for ms in each])
            how = "one key" if one_key else "own keys"
            rows.append([str(nodes), str(clients), how, f"{rate:.0f}", f"{least:.0f}"])
            rows[-1] += [f"{took.median:.1f}", f"{took.p95:.1f}"]
    return rows


def _node(url: str, folder: Path, clients: int, one_key: bool, seconds: float) -> list[float]:
    """Clients of one node that do one run after the other; milliseconds of each admission."""
    from gevent import monkey

    monkey.patch_socket()
    monkey.patch_select()
    from bridge.ledger.replica import SharedTallies
    from bridge.store.redis import Cluster

    clock, store = Clock(), Store.open(folder)
    cluster = Cluster(url, folder.name, clock)
    cluster.join(folder.name, "")
    ledger = Ledger(
        SharedTallies(cluster, store, clock, UTC), clock, UTC, {}, PriceTable(folder / "prices.json", clock)
    )
    samples: dict[str, list[float]] = defaultdict(list)
    names = ["shared" if one_key else f"{folder.name}-{number}" for number in range(clients)]
    books = SimpleNamespace(ledger=ledger)
    _work(books, [SimpleNamespace(name=name, limits=LIMITS) for name in names], seconds, samples)  # type: ignore[arg-type]
    ledger.close()
    store.close()
    return samples[f"admission, {clients} at once"]


# --- all of it -----------------------------------------------------------------------------------------


def measure(seconds: float) -> dict[str, Any]:
    """Run everything."""
    facts = lab.machine()
    with tempfile.TemporaryDirectory(prefix=".bench-ledger-", dir=Path.cwd()) as made:
        folder = Path(made)
        for name in ("runs", "start", "memory"):
            (folder / name).mkdir()
        disk = fdatasync(folder)
        steps, per_second = runs(folder / "runs", seconds)
        found = authentication(folder)
        return {
            "machine": facts,
            "figures": {each.name: each for each in (disk, *steps, *found)},
            "runs_per_second": {clients: round(rate, 1) for clients, rate in per_second.items()},
            "start": start_up(folder / "start"),
            "memory": memory(folder / "memory"),
        }


def targets(figures: dict[str, lab.Figures]) -> dict[str, tuple[float, float]]:
    """What is to be reached: (measured, at most)."""
    return {
        "median admission at 8 clients, ms": (figures["admission, 8 at once"].median, ADMISSION_MS),
        **{
            f"{what}, {KEYS[-1]:,} keys / {KEYS[0]} keys": (
                figures[_named(what, KEYS[-1])].median / figures[_named(what, KEYS[0])].median,
                KEYS_RATIO,
            )
            for what in (REQUEST, FIND)
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=9, help="for the runs of clients, all together")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--store", choices=("files", "redis"), default="files", help="where the books are kept")
    options = parser.parse_args()
    if options.store == "redis":
        with tempfile.TemporaryDirectory(prefix=".bench-ledger-", dir=Path.cwd()) as made:
            rows = shared(Path(made), options.seconds / len(SHARED))
        head = ["nodes", "clients of each", "keys", "runs/s of a node", "at least", "admission ms", "p95 ms"]
        print(lab.table(head, rows))
        lab.write_json(
            options.json, {"machine": lab.machine(), "rows": [dict(zip(head, row, strict=True)) for row in rows]}
        )
        return
    result = measure(options.seconds)
    figures: dict[str, lab.Figures] = result["figures"]
    reached = targets(figures)
    rows = [[f.name, f.n, f"{f.median:.4g}", f"{f.p95:.4g}"] for f in figures.values()]
    print(lab.table(["step", "n", "median ms", "p95 ms"], rows), end="\n\n")
    rates = result["runs_per_second"]
    print(lab.table(["clients at once", "runs per second"], [[k, f"{v:.0f}"] for k, v in rates.items()]), end="\n\n")
    print(
        lab.table(
            ["target", "measured", "at most", "reached"],
            [[k, f"{v:.2f}", most, "yes" if v <= most else "NO"] for k, (v, most) in reached.items()],
        ),
        end="\n\n",
    )
    print(f"start-up with a journal of {JOURNAL_LINES:,} lines:", json.dumps(result["start"]))
    print(f"usage of {USED_KEYS:,} keys over {USED_DAYS} days:", json.dumps(result["memory"]))
    print("machine:", json.dumps(result["machine"]))
    lab.write_json(
        options.json,
        {
            **result,
            "figures": {name: vars(f) for name, f in figures.items()},
            "targets": {name: {"measured": v, "at_most": most} for name, (v, most) in reached.items()},
        },
    )


if __name__ == "__main__":
    main()
