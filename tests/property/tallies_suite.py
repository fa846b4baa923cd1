"""What every implementation of `Tallies` is held to: a way to open it, to end its process, and to fail its storage.

A new implementation is one more entry in BACKENDS; tests/property holds it against a naive model, and
tests/unit/test_tallies.py against each promise of the seam.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

import gevent

from bridge.errors import BridgeError
from bridge.ledger.replica import SharedTallies
from bridge.ledger.tallies import FileTallies, Tallies
from bridge.records.runlog import RunLog
from bridge.store.folder import Store
from bridge.store.redis import Cluster
from tests.support.ledger import FrozenClock, record
from tests.support.redis import module_server


class Backend(Protocol):
    """One storage, and at most one process at a time that has it open."""

    tallies: Tallies
    clock: FrozenClock

    def open(self) -> None:
        """Begin as a new process, with what is stored."""

    def stop(self) -> None:
        """End the process as it should be."""

    def crash(self, kept: float) -> None:
        """End the process at once. Of what it had not confirmed, the share `kept` was stored (0 to 1)."""

    def lose_the_last_snapshot(self) -> None:
        """End the process while it puts things in order: what it had saved last is not there."""

    def failing(self) -> AbstractContextManager[None]:
        """A block in which nothing can be stored."""

    def lines(self) -> dict[str, float]:
        """The dollars in the log by the id of each run that ended."""


class Files:
    """FileTallies on a folder."""

    tallies: FileTallies

    def __init__(self, folder: Path, clock: FrozenClock, zone: str) -> None:
        self.folder = folder
        self.clock = clock
        self.zone = ZoneInfo(zone)
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.folder)
        try:
            self.tallies = FileTallies(self.store, self.clock, self.zone)
        except BaseException:
            self.store.close()
            raise

    def stop(self) -> None:
        self.tallies.close()
        self.store.close()

    def crash(self, kept: float) -> None:
        self._finish_snapshot()
        journal = self.tallies.journal
        path, confirmed = journal.path, journal.size
        self.tallies.note(record("run_unconfirmed"))
        journal.sync()
        added = journal.size - (confirmed if journal.path == path else 0)
        path = journal.path
        os.truncate(path, journal.size - added + round(added * kept))
        self._leave()

    def lose_the_last_snapshot(self) -> None:
        lose_the_last_snapshot(self.folder, self.tallies)
        self._leave()

    @contextmanager
    def failing(self) -> Iterator[None]:
        calls = ("write", "fdatasync", "fsync")
        real = {name: getattr(os, name) for name in calls}

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for name in calls:
            setattr(os, name, fail)
        try:
            yield
        finally:
            for name in calls:
                setattr(os, name, real[name])

    def lines(self) -> dict[str, float]:
        log = RunLog(self.tallies.journal, self.clock, self.zone)
        return {line["id"]: line["costUsd"] for line in log.iterate()}

    def _finish_snapshot(self) -> None:
        _finish_snapshot(self.tallies)

    def _leave(self) -> None:
        self._finish_snapshot()
        _leave(self.folder, self.store)


class Shared:
    """SharedTallies on a folder and a cluster of one node."""

    tallies: SharedTallies

    def __init__(self, folder: Path, clock: FrozenClock, zone: str) -> None:
        self.folder = folder
        self.clock = clock
        self.zone = ZoneInfo(zone)
        self.url = module_server().found(next(_databases))
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.folder)
        self.cluster = Cluster(self.url, "node", self.clock)
        self.cluster.join(str(self.folder), "")
        self.tallies = SharedTallies(self.cluster, self.store, self.clock, self.zone)
        self.tallies.patience_s = 0

    def stop(self) -> None:
        self.tallies.close()
        self.store.close()

    def crash(self, kept: float) -> None:
        self.tallies.note(record("run_unconfirmed"))
        if kept > 0.5:
            self.tallies.sync()
        elif kept > 0.25:
            self.tallies.journal.sync()
        self._leave()

    def lose_the_last_snapshot(self) -> None:
        lose_the_last_snapshot(self.folder, self.tallies)
        self._leave()

    @contextmanager
    def failing(self) -> Iterator[None]:
        real = self.cluster._client

        class Gone:
            def execute_command(self, *words: object) -> None:
                raise ConnectionError

        self.cluster._client = Gone()
        try:
            yield
        finally:
            self.cluster._client = real

    def lines(self) -> dict[str, float]:
        log = RunLog(self.tallies.journal, self.clock, self.zone, self.tallies.sync)
        return {line["id"]: line["costUsd"] for line in log.iterate()}

    def _leave(self) -> None:
        self.tallies._keeper.kill()
        self.cluster.abandon()
        _finish_snapshot(self.tallies._own)
        _leave(self.folder, self.store)


def lose_the_last_snapshot(folder: Path, tallies: FileTallies | SharedTallies) -> None:
    """Save it, and put the one before in its place."""
    usage = folder / "usage.json"
    before = usage.read_bytes()
    tallies.save()
    usage.write_bytes(before)


def _finish_snapshot(tallies: FileTallies) -> None:
    """Its thread would go on, beside the next process in the same place. (tests/faults kills whole servers.)"""
    while tallies._due:
        gevent.sleep(0.005)


def _leave(folder: Path, store: Store) -> None:
    """What is on the disk stays as it is; everything in memory is gone."""
    copy = folder.with_name(folder.name + "-copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.new"))
    store.close()
    # Moved away, not removed: what is still being written there goes where a crash would put it.
    folder.rename(copy.with_name(f"{copy.name}-of-{len(list(copy.parent.iterdir()))}"))
    copy.rename(folder)


_databases = itertools.count(1)

BACKENDS: dict[str, Callable[[Path, FrozenClock, str], Backend]] = {"files": Files, "redis": Shared}


def refused(call: Callable[[], object]) -> str | None:
    """The code with which a call is refused; None where it is not."""
    try:
        call()
    except BridgeError as error:
        return error.code
    return None
