"""Append-only files of JSON lines in which what was acknowledged stays.

A line is `{"seq":7,…,"crc":"1c291ca3"}`: a number that grows by one, the record, and a CRC-32 of all that stands
before `,"crc"`. Lines are written in groups: all records that arrive while one group is being written go into the
next, with one write and one fdatasync for all of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from errno import EIO, ESTALE
from pathlib import Path
from typing import TypeVar

import gevent
import msgspec
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from bridge.errors import BridgeError, StoreError
from bridge.store.document import REPAIR_HINT
from bridge.store.files import (
    in_thread,
    open_private,
    private_folder,
    set_aside,
    storage_failed,
    sync_folder,
    unbroken,
    write_all,
)

#: A write and its fdatasync that took less than this, in seconds, are not worth a thread: waking one costs
#: about as much, twice for each run. One slow write, and the next goes to a thread again.
QUICK_S = 0.0005
#: Seconds that a record may wait for others when nothing waits for it.
LAZY_S = 0.5
#: Lines that are read before other greenlets get their turn.
LINES_A_TURN = 200
_CHUNK = 65536
_CRC_LENGTH = len(b',"crc":"00000000"}')
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")

T = TypeVar("T")


class Batch:
    """The records of one write. It is the ticket that `Journal.append` gives and `commit` waits for."""

    __slots__ = ("done", "error", "lines")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.done = Event()
        self.error: OSError | None = None


class Position(msgspec.Struct, frozen=True):
    """A place between two records: after record `seq`, `offset` bytes into `file`. No file: before the first one."""

    seq: int = 0
    file: str = ""
    offset: int = 0


class Journal:
    """The writing side of one file. The lock of the data folder sees to it that there is one writer.

    A write that fails closes the journal: `failed` is true, and records wait in memory until `reopen` has
    written them. So what was appended is either on the disk or still to come, in the order of the calls.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file. A torn last line is cut off. Raises StoreError."""
        self.path = path
        #: called with the seconds that each write took, the disk's part included; must not raise
        self.on_commit: Callable[[float], None] = lambda seconds: None
        #: lines and bytes written since the file was opened or `capture` was last called
        self.lines = self.bytes = 0
        #: whether `reopen` found the file moved away, with what was confirmed in it; its owner sets this back
        self.moved = False
        self._pending = Batch()
        self._latest = self._pending
        self._owed: list[bytes] = []
        self._io = BoundedSemaphore(1)
        self._failure: OSError | None = None
        self._writing = False
        self._dozing = False
        #: how long the last write took, in seconds; unknown is slow
        self._write_s = math.inf
        try:
            self._open()
        except OSError as error:
            raise StoreError(
                f"{path.name} cannot be opened ({os.strerror(error.errno or 0)}).",
                "Check the disk and the rights of the data folder.",
            ) from None
        self.seq = _last_seq(self._fd, self._size)

    @property
    def failed(self) -> bool:
        """Whether a write has failed and `reopen` has not worked since."""
        return self._failure is not None

    @property
    def size(self) -> int:
        """Bytes that are safely in the file."""
        return self._size

    @property
    def position(self) -> Position:
        """The end of the file, by what was appended so far."""
        return Position(self.seq, self.path.name, self._size)

    def refuse_if_failed(self) -> None:
        """Raise BridgeError storage_failed while the journal is closed."""
        if self._failure is not None:
            raise storage_failed(self._failure)

    def append(self, body: bytes, *, lazily: bool = False) -> Batch:
        """Queue one record, an encoded JSON object with at least one field. Never switches greenlets.

        It is written soon, waited for or not: at once, or `lazily` within LAZY_S together with what comes
        meanwhile. While the journal is closed, the record is owed: `reopen` writes it.
        """
        self.seq += 1
        line = encode(self.seq, body)
        if self._failure is not None:
            self._owed.append(line)
            return _failed_batch(self._failure)
        self._pending.lines.append(line)
        self._latest = self._pending
        if not lazily:
            self._wake()
        elif not self._writing and not self._dozing:
            self._dozing = True
            gevent.spawn_later(LAZY_S, self._wake)
        return self._pending

    def commit(self, ticket: Batch) -> None:
        """Wait until the records of `ticket` are on the disk.

        Raises BridgeError storage_failed; then they are owed. A greenlet that is killed while it waits stops
        nothing: the record is written all the same.
        """
        ticket.done.wait()
        if ticket.error is not None:
            raise storage_failed(ticket.error)

    def write(self, body: bytes) -> None:
        """Append a record and wait for it; after a failure once more, into a new file where the old one was moved
        away. Raises BridgeError storage_failed; the record is owed then."""
        try:
            self.commit(self.append(body))
        except BridgeError:
            self.reopen()

    def sync(self) -> None:
        """Wait until everything appended so far is on the disk. Raises BridgeError storage_failed."""
        self.refuse_if_failed()
        if self._latest.lines:
            self._wake()
            self.commit(self._latest)

    def capture(self, take: Callable[[], T]) -> tuple[T, Position]:
        """What `take` finds in memory between two records, and their place, once all before it is on the disk.

        `take` must not switch greenlets. Raises BridgeError storage_failed.
        """
        with self._io:
            self.refuse_if_failed()
            batch, self._pending = self._pending, Batch()
            seq, taken = self.seq, take()
            self._write_batch(batch)
            if batch.error is not None:
                raise storage_failed(batch.error)
            self.lines = self.bytes = 0
            return taken, Position(seq, self.path.name, self._size)

    def reopen(self) -> None:
        """After a failure: write what is owed, into a new file where the old one was moved away, and take records
        again. Raises BridgeError storage_failed."""
        unbroken(self._reopen)

    def _reopen(self) -> None:
        with self._io:
            try:
                while self._failure is not None:
                    in_thread(self._open_again)
                    number, data = len(self._owed), b"".join(self._owed)
                    in_thread(self._write, data)
                    self._note_written(number, len(data))
                    del self._owed[:number]
                    if not self._owed:
                        self._failure = None
            except OSError as error:
                self._failure = error
                raise storage_failed(error) from error

    def close(self) -> None:
        """Wait for what is queued, then close the file. Raises BridgeError storage_failed."""
        try:
            self.reopen()
            self.sync()
        finally:
            os.close(self._fd)

    def _wake(self) -> None:
        self._dozing = False
        if not self._writing:
            self._writing = True
            gevent.spawn(self._write_pending)

    def _write_pending(self) -> None:
        # A greenlet of its own, so that killing a waiting request cannot break off a write.
        try:
            while self._pending.lines:
                with self._io:
                    batch, self._pending = self._pending, Batch()
                    self._write_batch(batch)
        finally:
            self._writing = False

    def _write_batch(self, batch: Batch) -> None:
        if batch.lines:
            data = b"".join(batch.lines)
            try:
                # A disk that answers quicker than a thread is woken is waited for in place.
                if self._write_s < QUICK_S:
                    self._write(data)
                else:
                    in_thread(self._write, data)
            except Exception as error:  # whatever it is, those who wait must hear of it
                self._fail(error if isinstance(error, OSError) else OSError(EIO, str(error)), batch)
            else:
                self._note_written(len(batch.lines), len(data))
                self.on_commit(self._write_s)
        batch.done.set()

    def _note_written(self, lines: int, size: int) -> None:
        self._size += size
        self.lines += lines
        self.bytes += size

    def _write(self, data: bytes) -> None:
        began = time.perf_counter()
        try:
            write_all(self._fd, data)
            os.fdatasync(self._fd)
            if not self._is_in_place():
                raise OSError(ESTALE, os.strerror(ESTALE))
        except OSError:
            # Nothing of this batch was acknowledged, so nothing of it should be read again.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        finally:
            self._write_s = time.perf_counter() - began

    def _is_in_place(self) -> bool:
        """Whether the path still leads to the file that is written to; else these lines would never be read."""
        return os.path.samestat(os.fstat(self._fd), os.stat(self.path))

    def _fail(self, error: OSError, batch: Batch) -> None:
        self._failure = error
        queued, self._pending = self._pending, Batch()
        self._latest = self._pending
        for each in (batch, queued):
            self._owed += each.lines
            each.error = error
            each.done.set()

    def _open(self) -> None:
        """Raises OSError."""
        fd = open_private(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            #: where the bytes of a torn last line are now, if there was one
            self.cut = _cut_torn_tail(fd, self.path)
            size = os.fstat(fd).st_size
            sync_folder(self.path.parent)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._size = fd, size

    def _open_again(self) -> None:
        """Cut off what a failed write has left; or open anew, where the file was moved away. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if self._is_in_place():
                os.ftruncate(self._fd, self._size)
                return
        private_folder(self.path.parent)
        old = self._fd
        self._open()
        self.moved = True
        os.close(old)


class DayJournal(Journal):
    """A journal with a file for each day in a folder: `2026-11-20.jsonl`. Numbers go on from file to file.

    No line goes into an earlier file than the last one, wherever the clock jumps: the files, by name, hold the
    records in their order.
    """

    def __init__(self, folder: Path, today: Callable[[], str]) -> None:
        """Go on in the last file. `today` is the day as `YYYY-MM-DD`. Raises StoreError."""
        self.folder = folder
        self._today = today
        try:
            private_folder(folder)
            files = day_files(folder)
        except OSError as error:
            raise StoreError(f"The log folder cannot be used ({error.strerror}).", "Check the data folder.") from None
        super().__init__(files[-1] if files else folder / f"{today()}.jsonl")
        for path in reversed(files[:-1]):
            if self.seq:
                break
            with path.open("rb") as file:
                self.seq = _last_seq(file.fileno(), os.fstat(file.fileno()).st_size)

    def _write(self, data: bytes) -> None:
        if (day := self._today()) > self.path.stem:
            old, path = self._fd, self.path
            self.path = self.folder / f"{day}.jsonl"
            try:
                self._open()
            except OSError:
                self.path = path
                raise
            os.close(old)
        super()._write(data)


def day_files(folder: Path) -> list[Path]:
    """The files of a DayJournal, oldest first. Raises OSError."""
    return sorted(path for path in folder.iterdir() if _DAY.fullmatch(path.name))


def _failed_batch(error: OSError) -> Batch:
    batch = Batch()
    batch.error = error
    batch.done.set()
    return batch


def _cut_torn_tail(fd: int, path: Path) -> Path | None:
    """Move a last line that was never finished to a file beside; the path of that file, if there is one.

    A crash can only tear what was being written, and that was not acknowledged to anybody yet.
    """
    size = os.fstat(fd).st_size
    last = next(_backwards(fd, size), None)
    if last is None:
        return None
    ended = os.pread(fd, 1, size - 1) == b"\n"
    if ended and intact(last):
        return None
    torn = last + b"\n" if ended else last
    aside = set_aside(path, "torn", torn)
    os.ftruncate(fd, size - len(torn))
    os.fsync(fd)
    return aside


# --- lines ---------------------------------------------------------------------------------------


def encode(seq: int, body: bytes) -> bytes:
    """A line, with its newline, of an encoded JSON object that has at least one field."""
    start = b'{"seq":%d,%s' % (seq, body[1:-1])
    return b'%s,"crc":"%08x"}\n' % (start, zlib.crc32(start))


def intact(line: bytes) -> bool:
    """Whether a line (without its newline) is as it was written."""
    if len(line) <= _CRC_LENGTH or not line.startswith(b'{"seq":'):
        return False
    return line[-_CRC_LENGTH:] == b',"crc":"%08x"}' % zlib.crc32(line[:-_CRC_LENGTH])


def seq_of(line: bytes) -> int:
    """The number of an intact line."""
    return int(line[7 : line.index(b",", 7)])


def read_forwards(files: Iterable[Path], after: Position) -> Iterator[bytes]:
    """Every line after a position, oldest first, from files in their order.

    Raises StoreError at the first that is missing or not as it was written.
    """
    expected = after.seq + 1
    for path in files:
        if path.name < after.file:
            continue
        name = f"{path.parent.name}/{path.name}"
        with path.open("rb", buffering=1 << 20) as file:
            file.seek(after.offset if path.name == after.file else 0)
            for ended in file:
                line = ended.rstrip(b"\n")
                if not intact(line):
                    raise StoreError(f"{name} is damaged at record {expected}.", REPAIR_HINT)
                if seq_of(line) != expected:
                    raise StoreError(f"{name} lacks lines before record {seq_of(line)}.", REPAIR_HINT)
                expected += 1
                yield line


def read_backwards(path: Path) -> Iterator[bytes]:
    """Every line, newest first, unchecked; none where there is no file.

    Read in chunks; other greenlets get their turn in between.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(_backwards(file.fileno(), os.fstat(file.fileno()).st_size)):
            if number % LINES_A_TURN == 0:
                gevent.sleep(0)
            yield line


def _backwards(fd: int, end: int) -> Iterator[bytes]:
    """The lines of an open file that end before `end`, newest first, without switching greenlets."""
    parts: list[bytes] = []  # the pieces of a line that began in an earlier chunk, last piece first
    while end > 0:
        start = max(0, end - _CHUNK)
        first, *rest = os.pread(fd, end - start, start).split(b"\n")
        if rest:
            parts.insert(0, rest.pop())
            yield from filter(None, [b"".join(parts), *reversed(rest)])
            parts = []
        parts.insert(0, first)
        end = start
    if any(parts):
        yield b"".join(parts)


def _last_seq(fd: int, size: int) -> int:
    """The number of the last intact line; 0 where there is none."""
    for line in _backwards(fd, size):
        if intact(line):
            return seq_of(line)
    return 0
