"""The lines of a journal: how one is written, recognised, and read from either end.

A line is `{"seq":7,…,"crc":"1c291ca3"}`: a number that grows by one, the record, and a CRC-32 of all
that stands before `,"crc"`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import gevent

from bridge.errors import StoreError
from bridge.store.document import REPAIR_HINT

_CHUNK = 65536
#: Lines that are read before other greenlets get their turn.
LINES_A_TURN = 200
_CRC_LENGTH = len(b',"crc":"00000000"}')


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
