"""What the tests of the ledger share: a clock that stands still, and a data folder that can be reopened."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import gevent
from msgspec import structs

from bridge.clock import Clock, day_of, parse_iso
from bridge.errors import BridgeError
from bridge.keys.keys import Key
from bridge.ledger.ledger import Ceiling, Ledger
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import FileTallies, Reservation, assumed, void
from bridge.limits import Limits
from bridge.records.runlog import RunLog
from bridge.store.folder import Store
from bridge.store.journal import DayJournal
from bridge.types import RunRecord

NOON = "2026-11-20T12:00:00Z"
UNLIMITED = {"maxRequestsPerMinute": 0, "maxConcurrent": 0, "maxCostPerDay": 0}


class FrozenClock(Clock):
    """Time goes on only when the test says so. Wall time may jump; the monotonic counter never goes back."""

    def __init__(self, at: str | float = NOON) -> None:
        self.wall = at if isinstance(at, float) else parse_iso(at)
        self.counter = 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.counter

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.counter += seconds

    def set(self, at: str) -> None:
        self.wall = parse_iso(at)


class Desk:
    """An open data folder with its ledger; demo prices: 3 dollars a million input, 15 output tokens."""

    def __init__(self, folder: Path, clock: FrozenClock | None = None, zone: str = "UTC", **limits: Any) -> None:
        self.folder = folder
        self.clock = clock or FrozenClock()
        self.zone = ZoneInfo(zone)
        self.key = key_with(**limits)
        self.runs = 0
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.folder)
        try:
            self.prices = PriceTable(self.folder / "prices.json", self.clock)
            self.tallies = FileTallies(self.store, self.clock, self.zone)
            self.ledger = Ledger(self.tallies, self.clock, self.zone, {}, self.prices)
            #: what a crash has cut off before this opening
            self.recovered = self.ledger.open_reservations()
            self.ledger.recover()
            self.tallies.save()
        except BaseException:
            self.store.close()
            raise

    def reserve(self, input_tokens: int = 100, output: int = 1000, key: Key | None = None) -> Reservation:
        self.runs += 1
        key = key or self.key
        return self.ledger.reserve(
            key.name, key.limits, f"run_{self.runs}", Ceiling("demo", "demo", input_tokens, output)
        )

    def settle(self, reservation: Reservation, cost_micro: int = 500, tokens: int = 40, **fields: Any) -> None:
        self.ledger.settle(line_of(reservation, cost_micro, output_tokens=tokens, **fields))

    def spend(self, cost_micro: int = 500, tokens: int = 40) -> None:
        self.settle(self.reserve(), cost_micro, tokens)

    def crash(self) -> None:
        """What is on the disk stays as it is; everything in memory is gone. (Not in the middle of a snapshot: its
        thread would go on, beside the next ledger in the same place. tests/faults kills whole servers.)"""
        while self.tallies._due:
            gevent.sleep(0.005)
        copy = self.folder.with_name(self.folder.name + "-copy")
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("*.new"))
        self.store.close()
        # Moved away, not removed: what is still being written there goes where a crash would put it.
        self.folder.rename(copy.with_name(f"{copy.name}-of-{len(list(copy.parent.iterdir()))}"))
        copy.rename(self.folder)

    def reopen(self) -> None:
        self.ledger.close()
        self.store.close()
        self.open()

    def today(self) -> dict[str, Any]:
        used: dict[str, Any] = self.ledger.usage(self.key.name)["today"]
        return used

    def refusal(self, **ask: Any) -> BridgeError:
        try:
            reservation = self.reserve(**ask)
        except BridgeError as error:
            return error
        raise AssertionError(f"admitted: {reservation}")


def line_of(reservation: Reservation, cost_micro: int, **fields: Any) -> RunRecord:
    """The line of a run that ended well, or as `fields` say."""
    given = {"status": 200, "code": None, "error": None, "input_tokens": 0, "output_tokens": 0, "assumed": False}
    return structs.replace(assumed(reservation), **{**given, "cost_usd": cost_micro / 1e6, **fields})


def open_log(folder: Path, clock: Clock, zone: str = "UTC") -> RunLog:
    """The request log of a data folder, without a ledger."""
    journal = DayJournal(folder / "logs", lambda: day_of(clock.now(), ZoneInfo(zone)))
    return RunLog(journal, clock, ZoneInfo(zone))


def write(log: RunLog, *lines: RunRecord) -> None:
    """Write lines that count nothing to a log; on the disk when this returns."""
    for line in lines:
        log.journal.append(void(line))
    log.journal.sync()


def key_with(name: str = "alice", **limits: Any) -> Key:
    return Key(name, (), Limits.parse({**UNLIMITED, **limits}), created_at=0.0)


def record(run_id: str, at: float = parse_iso(NOON), **fields: Any) -> RunRecord:
    values: dict[str, Any] = {
        "id": run_id,
        "timestamp": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "key_name": "alice",
        "provider": "demo",
        "model": "demo",
        "api": "native",
        "status": 200,
        "code": None,
        "error": None,
        "stream": False,
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": 0.00033,
        "reserved_usd": 0.01,
        "assumed": False,
        "duration_ms": 5,
        "queued_ms": 0,
        "first_token_ms": 1,
        "warm": True,
        "stop_reason": "end_turn",
        "system_prompt": None,
        "user_prompt": "hello",
    }
    return RunRecord(**{**values, **fields})
