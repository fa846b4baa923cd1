"""The programs of the CLIs: the file of one, held open, and clis.json, the record of which serve and what was found out
about them."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import msgspec

from bridge.errors import StoreError
from bridge.store.document import Document
from bridge.store.files import open_private

Stamp = tuple[int, int, int]
"""By which a file that was replaced or written into is known: when it was changed last, its size, its inode."""

#: Results of checks that are remembered.
MOST_CHECKS = 20

log = logging.getLogger("bridge")


def stamp_of(path: str) -> Stamp | None:
    """The stamp of what is in a place now; None where there is nothing."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def digest_of(path: str) -> str:
    """SHA-256 of a file, in hexadecimal; takes a second for a CLI. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Program:
    """The file of a CLI as it was when it was opened. It can be started for as long as it is open, whatever has come
    into its place."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self.path = path
        # Only a handle: it needs no permission to read.
        self.file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self.stamp = _stamp(os.fstat(self.file))
        #: whether some folder on its way lets only its owner through
        self.hidden = any(not parent.stat().st_mode & stat.S_IXOTH for parent in Path(path).parents)
        #: whether it is a script: what that starts may change, and the script not
        self.is_script = _is_script(path)
        #: what it says that it is, as soon as it was asked
        self.version = ""

    def is_same(self, other: Program) -> bool:
        """Whether both are one file, which says of both that it is one version."""
        return (self.stamp, self.version) == (other.stamp, other.version)

    @property
    def in_place(self) -> bool:
        """Whether it is still what its path leads to."""
        return stamp_of(self.path) == self.stamp

    @property
    def whole(self) -> bool:
        """Whether nobody has written into it."""
        return _stamp(os.fstat(self.file)) == self.stamp

    def close(self) -> None:
        """Let go of it; what runs of it goes on."""
        os.close(self.file)


class ProgramCheck(msgspec.Struct, frozen=True, rename="camel"):
    """What a check of a program has found, at `at` in UTC seconds. `problem`: None where it does what is relied on."""

    provider: str
    version: str
    at: float
    #: SHA-256
    digest: str
    stamp: Stamp
    problem: str | None = None


class ChosenProgram(msgspec.Struct, rename="camel"):
    """A program that `clis upgrade` has chosen, at `since` in UTC seconds. It holds for so long as the setting names
    the same command and the bridge has the same tested version: whoever changes these has chosen otherwise."""

    version: str
    program: str
    since: float
    command: str
    tested: str
    #: the choice before, to go back to; None for the program of the setting
    before: ChosenProgram | None = None
    #: how many of its first runs were watched, and how many of them the CLI has failed
    runs: int = 0
    failed: int = 0


class Outcome(msgspec.Struct, frozen=True, rename="camel"):
    """How the first runs of a version went, at `at` in UTC seconds: whether it stays, and a sentence."""

    version: str
    at: float
    stays: bool
    message: str


class Newest(msgspec.Struct, frozen=True, rename="camel"):
    """The newest version that the registry had, at `at` in UTC seconds."""

    version: str
    at: float


class BridgeNews(msgspec.Struct, frozen=True, rename="camel"):
    """What the remote that the bridge itself came from had, at `at` in UTC seconds."""

    at: float
    #: the version and the commit that it was compared with
    runs: str = ""
    #: the newest release, or else the newest commit
    newest: str | None = None
    #: where that is newer: what is to be said of it, and to be done
    news: str | None = None
    #: why it is not known now, as a part of a sentence
    problem: str | None = None


class Record(msgspec.Struct, rename="camel"):
    """What clis.json holds; what is of one CLI by its name."""

    checks: list[ProgramCheck] = []
    chosen: dict[str, ChosenProgram] = {}
    outcomes: dict[str, Outcome] = {}
    newest: dict[str, Newest] = {}
    bridge: BridgeNews | None = None
    schema: int = 1


class ProgramBook:
    """clis.json of a data folder. The service and the commands on this host write it in turns."""

    def __init__(self, folder: Path) -> None:
        self._document = Document(folder / "clis.json", keeps_previous=False)

    def read(self) -> Record:
        """What it holds now. One that cannot be read is begun afresh: then programs are checked once more."""
        try:
            return msgspec.convert(self._document.load() or {}, Record)
        except (StoreError, msgspec.ValidationError) as error:
            log.warning("clis.json is begun afresh: %s", error)
            return Record()

    @contextmanager
    def change(self) -> Iterator[Record]:
        """What it holds, to be changed within. Raises BridgeError storage_failed, OSError."""
        lock = open_private(self._document.path.with_name("clis.lock"), os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # Another greenlet may have it, whose turn it then is.
                    gevent.sleep(0.05)
            record = self.read()
            yield record
            self._document.save(msgspec.to_builtins(record))
        finally:
            os.close(lock)

    def choice(self, provider: str, command: str, tested: str) -> ChosenProgram | None:
        """What was chosen, where that holds still and is there."""
        found = self.read().chosen.get(provider)
        holds = found is not None and (found.command, found.tested) == (command, tested)
        return found if found is not None and holds and os.access(found.program, os.X_OK) else None

    def checked(self, provider: str, stamp: Stamp, version: str) -> ProgramCheck | None:
        """What was found of the program with that stamp and version."""
        wanted = (provider, stamp, version)
        return next((each for each in self.read().checks if (each.provider, each.stamp, each.version) == wanted), None)

    def passed(self, provider: str, digest: str, version: str) -> bool:
        """Whether a program with that content and version was checked before, and passed."""
        wanted = (provider, digest, version, None)
        return any((each.provider, each.digest, each.version, each.problem) == wanted for each in self.read().checks)

    def note(self, check: ProgramCheck) -> None:
        """Remember what a check has found; one of the same program before it is forgotten. Raises like `change`."""
        with self.change() as record:
            others = [e for e in record.checks if (e.digest, e.version) != (check.digest, check.version)]
            record.checks = [check, *others][:MOST_CHECKS]
