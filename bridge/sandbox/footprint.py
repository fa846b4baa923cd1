"""Which processes are below another one, and how much memory they take, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of one process; 0 where it has gone. What processes share counts for each of them."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def descendants(pid: int | str = "self") -> Iterator[int]:
    """The process ids of a process's children, and of theirs."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def children(pid: int | str = "self") -> list[int]:
    """The process ids of a process's children."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass  # it ends just now
    return found
