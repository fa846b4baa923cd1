"""Append-only files of JSON lines in which what was acknowledged stays.

A line is `{"seq":7,…,"crc":"1c291ca3"}`: a number that grows by one, the record, and a CRC-32 of all that stands
before `,"crc"`. Lines are written in groups: all records that arrive while one group is being written go into the
next, with one write and one fdatasync for all of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from errno import EIO, ESTALE
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from bridge.errors import BridgeError, StoreError
from bridge.store.document import REPAIR_HINT
from bridge.store.files import (
    in_thread,
    keep_previous,
    open_private,
    set_aside,
    storage_failed,
    sync_folder,
    write_all,
)

#: A write and its fdatasync that took less than this, in seconds, are not worth a thread: waking one costs
#: about as much, three times for each run. One slow write, and the next goes to a thread again.
QUICK_S = 0.0005
_CHUNK = 65536
#: Lines that are read before other greenlets get their turn.
LINES_A_TURN = 200
_CRC_LENGTH = len(b',"crc":"00000000"}')


class Batch:
    """The records of one write. It is the ticket that `Journal.append` gives and `commit` waits for."""

    __slots__ = ("done", "error", "lines")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.done = Event()
        self.error: OSError | None = None


class Journal:
    """The writing side. One per file; the lock of the data folder sees to that.

    A write that fails closes the journal: `failed` is true and every append is refused, until
    `compact` has written a snapshot of what is in memory and started the file afresh.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file. A torn last line is cut off. Raises StoreError."""
        self.path = path
        self.lines = 0  #: lines written since the file was opened or started afresh
        self._pending = Batch()
        self._latest = self._pending
        self._io = BoundedSemaphore(1)
        self._failure: OSError | None = None
        self._writing = False
        #: called with the seconds that each write took, the disk's part included; must not raise
        self.on_commit: Callable[[float], None] = lambda seconds: None
        #: how long the last write took, in seconds; unknown is slow
        self._write_s = math.inf
        try:
            self._fd = open_private(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                #: where the bytes of a torn last line are now, if there was one
                self.cut = _cut_torn_tail(self._fd, path)
                self._size = os.fstat(self._fd).st_size
                sync_folder(path.parent)
            except OSError:
                os.close(self._fd)
                raise
        except OSError as error:
            raise StoreError(
                f"{path.name} cannot be opened ({os.strerror(error.errno or 0)}).",
                "Check the disk and the rights of the data folder.",
            ) from None
        self.seq = last_seq(self._fd, self._size)

    @property
    def failed(self) -> bool:
        """Whether a write has failed, so that nothing is taken until `compact` has worked."""
        return self._failure is not None

    @property
    def size(self) -> int:
        """Bytes that are safely in the file."""
        return self._size

    def refuse_if_failed(self) -> None:
        """Raise BridgeError storage_failed while the journal is closed."""
        if self._failure is not None:
            raise storage_failed(self._failure)

    def append(self, body: bytes) -> Batch:
        """Queue one record, an encoded JSON object with at least one field. Never switches greenlets.

        It is written soon, waited for or not, and in the order of the calls. Raises BridgeError
        storage_failed while the journal is closed.
        """
        self.refuse_if_failed()
        self.seq += 1
        self._pending.lines.append(encode(self.seq, body))
        self._latest = self._pending
        if not self._writing:
            self._writing = True
            gevent.spawn(self._write_pending)
        return self._pending

    def commit(self, ticket: Batch) -> None:
        """Wait until the records of `ticket` are on the disk.

        Raises BridgeError storage_failed; then none of them counts. A greenlet that is killed while
        it waits stops nothing: the record is written all the same.
        """
        ticket.done.wait()
        if ticket.error is not None:
            raise storage_failed(ticket.error)

    def sync(self) -> None:
        """Wait until everything appended so far is on the disk. Raises BridgeError storage_failed."""
        if self._latest.lines:
            self.commit(self._latest)

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
                self._size += len(data)
                self.lines += len(batch.lines)
                self.on_commit(self._write_s)
        batch.done.set()

    def _write(self, data: bytes) -> None:
        began = time.perf_counter()
        try:
            write_all(self._fd, data)
            os.fdatasync(self._fd)
            if not os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
                # Somebody put another file in its place: nobody will ever read this one.
                raise OSError(ESTALE, os.strerror(ESTALE))
        except OSError:
            # Nothing of this batch was acknowledged, so nothing of it should be read again.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        finally:
            self._write_s = time.perf_counter() - began

    def _fail(self, error: OSError, *batches: Batch) -> None:
        self._failure = error
        queued, self._pending = self._pending, Batch()
        self._latest = self._pending
        for batch in (*batches, queued):
            batch.error = error
            batch.done.set()

    def compact(self, save: Callable[[int], None]) -> None:
        """Put a snapshot in the place of the file's content; also the way out after a failure.

        `save(seq)` must store everything up to record `seq`; it is called when nothing is being
        written, and must look at memory before it switches greenlets. A crash at any point is
        harmless: until the file is replaced, readers skip what the snapshot already has.
        Raises BridgeError storage_failed or whatever `save` raises.
        """
        with self._io:
            # From here on records are taken again. They, and any that wait in the queue and that the
            # snapshot has too, are written behind it.
            failure, self._failure = self._failure, None
            try:
                save(self.seq)
            except BaseException:
                if failure is not None:
                    self._fail(failure)
                raise
            try:
                in_thread(self._start_afresh)
            except OSError as error:
                self._fail(error)
                raise storage_failed(error) from error
            self._size = self.lines = 0

    def _start_afresh(self) -> None:
        new = self.path.with_name(self.path.name + ".new")
        fd = open_private(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            if self.path.exists():
                # With the previous snapshot, these lines are what `doctor --repair` can go back to.
                keep_previous(self.path)
            os.replace(new, self.path)
            sync_folder(self.path.parent)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        """Wait for what is queued, then close the file. Raises BridgeError storage_failed."""
        try:
            self.sync()
        finally:
            os.close(self._fd)


def _cut_torn_tail(fd: int, path: Path) -> Path | None:
    """Move a last line that was never finished to a file beside; the path of that file, if there is one.

    A crash can only tear what was being written, and that was not acknowledged to anybody yet.
    """
    size = os.fstat(fd).st_size
    last = next(backwards(fd, size), None)
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


class LogFile:
    """Lines that nothing is computed from. A write that failed is lost; the next one is tried afresh."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError where the file cannot be opened."""
        self.path = path
        self._journal = Journal(path)

    @classmethod
    def create(cls, path: Path) -> LogFile:
        """The same while the server runs: raises BridgeError storage_failed."""
        try:
            return cls(path)
        except StoreError as error:
            raise _refused(error) from error

    def write(self, body: bytes) -> None:
        """Add a line, an encoded JSON object; on the disk when this returns. Raises BridgeError storage_failed."""
        try:
            self._write(body)
        except BridgeError:
            self._write(body)  # once more, into a new file where somebody has moved the old one away

    def _write(self, body: bytes) -> None:
        if self._journal.failed:
            self._reopen()
        self._journal.commit(self._journal.append(body))

    def close(self) -> None:
        """Close the file; it may not be written to afterwards."""
        try:
            self._journal.close()
        except BridgeError:
            pass  # whoever waited for those lines was told

    def _reopen(self) -> None:
        try:
            fresh = Journal(self.path)
        except StoreError as error:
            raise _refused(error) from error
        self.close()
        self._journal = fresh


def _refused(error: StoreError) -> BridgeError:
    return BridgeError("storage_failed", error.message, error.hint, retry_after=5)


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


def read_forwards(path: Path) -> Iterator[bytes]:
    """Every line, oldest first, each checked. Raises StoreError at the first that is not as written."""
    expected = None
    with path.open("rb", buffering=1 << 20) as file:
        for number, ended in enumerate(file, start=1):
            line = ended.rstrip(b"\n")
            if not intact(line):
                raise StoreError(f"{path.name} is damaged at line {number}.", REPAIR_HINT)
            seq = seq_of(line)
            if expected is not None and seq != expected:
                raise StoreError(f"{path.name} lacks lines before line {number}.", REPAIR_HINT)
            expected = seq + 1
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
        for number, line in enumerate(backwards(file.fileno(), os.fstat(file.fileno()).st_size)):
            if number % LINES_A_TURN == 0:
                gevent.sleep(0)
            yield line


def backwards(fd: int, end: int) -> Iterator[bytes]:
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


def last_seq(fd: int, size: int) -> int:
    """The number of the last intact line; 0 where there is none."""
    for line in backwards(fd, size):
        if intact(line):
            return seq_of(line)
    return 0
