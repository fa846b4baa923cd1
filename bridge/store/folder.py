"""The data folder: whose it is, what must be in it, and the steps from an older version of that to this one's.

Each document carries the version of its schema. A newer one than this program knows is refused: it would
misread it. An older one is brought up to date at the start, after a backup of the folder was made. The journal
and the logs go with usage.json: a version that adds a kind of record to them raises its number.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import gevent
import msgspec

from bridge.clock import Clock, iso
from bridge.errors import BridgeError, StoreError, StoreLocked
from bridge.store import archive
from bridge.store.document import REPAIR_HINT, SCHEMAS, Document
from bridge.store.files import open_private, private_folder

SCHEMA: Final = 1
RESTORING: Final = "restoring"
"""A folder of that name: a restore was cut off in the middle of its swap (see ops/backup.py)."""
CLUSTER_FILE: Final = "cluster.json"
"""What a folder knows of the cluster that its host has joined; without that cluster it is not opened."""
_LEAST_WAIT_S = 0.2
_TIGHTENED = ("*.json", "*.json.previous", "*.jsonl", "logs/*.jsonl")

Step = Callable[[dict[str, Any]], dict[str, Any]]
"""The content of a document, of one version, as the next version has it."""

STEPS: Mapping[tuple[str, int], Step] = {}
"""(document, version) -> the step to the version after it. None was needed yet: every file is of version 1."""


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
    def open(cls, folder: Path, *, wait_s: float = 0) -> Store:
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
                store.announce({})
                store._tighten()
                store._refuse_half_restored()
                upgrade(folder, Clock())
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
        if usage.absent and (not keys.absent or any((self.folder / "logs").glob("*.jsonl"))):
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


# --- versions ------------------------------------------------------------------------------------


def older_documents(folder: Path, current: Mapping[str, int] = SCHEMAS) -> dict[str, int]:
    """The documents that are older than `current`, with their versions. Raises StoreError for a newer one.

    What cannot be read is left to those who read it: they have better words for it.
    """
    older = {}
    for name, version in current.items():
        found = _version(folder / name)
        if found is None or found == version:
            continue
        if found > version:
            raise StoreError(
                f"{name} was written by a newer version of cli-bridge (schema {found}; this one reads {version}).",
                "Use that version, or restore the backup that it made before the upgrade (in backup/).",
            )
        older[name] = found
    return older


def upgrade(
    folder: Path,
    clock: Clock,
    current: Mapping[str, int] = SCHEMAS,
    steps: Mapping[tuple[str, int], Step] = STEPS,
) -> Path | None:
    """Bring a folder, of which this process has the lock, up to date; the backup that was made before, if any
    was needed. Raises StoreError and OSError; then everything is as it was, or part of the documents is up to
    date and the next start goes on with the others."""
    older = older_documents(folder, current)
    if not older:
        return None
    missing = [
        name for name, found in older.items() if any((name, v) not in steps for v in range(found, current[name]))
    ]
    if missing:
        raise StoreError(
            f"{missing[0]} has schema {older[missing[0]]}, which this version of cli-bridge cannot bring up to date.",
            "Start a version of cli-bridge in between first; CHANGELOG.md names it.",
        )
    saved = _backup(folder, clock)
    for name, found in older.items():
        content = msgspec.json.decode((folder / name).read_bytes())
        for version in range(found, current[name]):
            content = steps[name, version](content)
        Document(folder / name, current[name]).save({k: v for k, v in content.items() if k != "schema"})
    return saved


def _version(path: Path) -> int | None:
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    version = content.get("schema") if isinstance(content, dict) else None
    return version if isinstance(version, int) and not isinstance(version, bool) else None


def _backup(folder: Path, clock: Clock) -> Path:
    private_folder(folder / "backup")
    stamp = iso(clock.now()).replace(":", "").replace("-", "").partition(".")[0]
    path = folder / "backup" / f"before-upgrade-{stamp}Z.tar.gz"
    archive.save(path, folder, None, iso(clock.now()))
    return path
