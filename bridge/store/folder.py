"""The data folder: whose it is, and what must be in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gevent

from bridge.clock import Clock, iso
from bridge.errors import BridgeError, StoreError, StoreLocked
from bridge.store import upgrade
from bridge.store.document import REPAIR_HINT, Document
from bridge.store.files import open_private, private_folder

SCHEMA: Final = 1
RESTORING: Final = "restoring"
"""A folder of that name: a restore was cut off in the middle of its swap (see restore.py)."""
_LEAST_WAIT_S = 0.2
_TIGHTENED = ("*.json", "*.json.previous", "*.jsonl", "logs/*.jsonl")


class Store:
    """A data folder that this process, and no other, may change until `close`.

    The lock is a flock, which the kernel takes back however the process ends. The lock file says
    who has it, and how commands on this host can reach a running server.
    """

    def __init__(self, folder: Path, lock: int, facts: dict[str, Any]) -> None:
        """Use `Store.open`."""
        self.folder = folder
        self._lock = lock
        self._facts = facts

    @classmethod
    def open(cls, folder: Path, *, address: str | None = None, wait_s: float = 0) -> Store:
        """Take the folder, making it if there is none, and trying for `wait_s` seconds.

        Raises StoreLocked where another process has it, and StoreError where it cannot be used, or
        lacks a file that it had.
        """
        try:
            private_folder(folder)
            _refuse_root(folder)
            lock = open_private(folder / "lock", os.O_RDWR | os.O_CREAT)
            try:
                _take(lock, max(wait_s, _LEAST_WAIT_S))
                store = cls(folder, lock, {"pid": os.getpid(), "startedAt": iso(Clock().now()), "schema": SCHEMA})
                store.announce({"address": address} if address else {})
                store._tighten()
                store._refuse_half_restored()
                upgrade.run(folder, Clock())
                store._begin()
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise StoreError(
                f"The data folder cannot be used ({os.strerror(error.errno or 0)}).",
                "Check that BRIDGE_DATA_DIR exists on a disk with free space and belongs to this user.",
            ) from None
        except BridgeError as error:
            raise StoreError(error.message, error.hint) from None
        return store

    @staticmethod
    @contextlib.contextmanager
    def held(folder: Path) -> Iterator[None]:
        """Keep every server away from a folder for a block, whatever state it is in; made if there is none.

        Raises StoreLocked where another process has it, and OSError.
        """
        private_folder(folder)
        lock = open_private(folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            _take(lock, _LEAST_WAIT_S)
            _write(lock, {"pid": os.getpid()})
            yield
            os.ftruncate(lock, 0)
        finally:
            os.close(lock)

    @staticmethod
    def holder(folder: Path) -> dict[str, Any] | None:
        """What the process that has the folder says of itself; None where none has it.

        Raises OSError where the lock file is there but cannot be opened.
        """
        try:
            lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            # A shared lock, and only for a moment: `open` waits longer than that.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(lock)
        else:
            return None
        finally:
            os.close(lock)

    def document(self, name: str) -> Document:
        """The document of that name in the folder."""
        return Document(self.folder / name)

    def announce(self, facts: dict[str, Any]) -> None:
        """Say more about this process in the lock file, such as its address. Raises OSError."""
        self._facts = {**self._facts, **facts}
        _write(self._lock, self._facts)

    def close(self) -> None:
        """Give the folder back."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)  # what it announced, a token among it, is no longer true
        os.close(self._lock)

    def _tighten(self) -> None:
        """Take away access that others have to files which were copied or restored here."""
        for pattern in _TIGHTENED:
            for path in self.folder.glob(pattern):
                with contextlib.suppress(PermissionError):  # reading it will say so in better words
                    os.close(open_private(path, os.O_RDONLY))

    def _refuse_half_restored(self) -> None:
        if (self.folder / RESTORING).exists():
            raise StoreError(
                "A restore of this data folder was cut off; its files are of different times.",
                "Run 'cli-bridge restore FILE' again. What was there before is in the folder replaced-… beside them.",
            )

    def _begin(self) -> None:
        """Write the first documents of a new folder, and see that an old one still has them.

        Without this, a lost usage.json would look like a first start, and every cap would begin anew.
        """
        usage, keys = self.document("usage.json"), self.document("keys.json")
        if usage.absent and (not keys.absent or (self.folder / "usage.jsonl").exists()):
            raise StoreError("usage.json is missing.", REPAIR_HINT)
        if usage.absent:
            usage.save({})
        if keys.absent:
            # keys.json comes second. Without it, usage.json can only be the empty one made just before.
            if len(usage.load() or {}) > 1:
                raise StoreError("keys.json is missing.", REPAIR_HINT)
            keys.save({})


def _refuse_root(folder: Path) -> None:
    """Root would leave files in another user's folder that the service, as that user, could not read."""
    owner = folder.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        raise StoreError(
            "The data folder belongs to another user than root.",
            f"Run this as that user (sudo -u '#{owner}' ...); or, if root is meant, give the folder to root.",
        )


def _take(lock: int, wait_s: float) -> None:
    for _ in _tries(wait_s):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    raise StoreLocked(_read(lock).get("pid"))


def _tries(wait_s: float, pause_s: float = 0.05) -> Iterator[None]:
    """Once, and then again after each pause until `wait_s` seconds are over."""
    deadline = Clock().monotonic() + wait_s
    yield
    while Clock().monotonic() < deadline:
        gevent.sleep(pause_s)
        yield


def _read(lock: int) -> dict[str, Any]:
    try:
        facts = json.loads(os.pread(lock, 65536, 0))
    except (ValueError, OSError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _write(lock: int, facts: dict[str, Any]) -> None:
    # In place: the lock is on this very file, so it cannot be replaced by another.
    data = json.dumps(facts).encode() + b"\n"
    os.ftruncate(lock, 0)
    os.pwrite(lock, data, 0)
