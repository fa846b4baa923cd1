"""How much memory there is, and what is left of it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

#: What a claude process takes while it works, in bytes (measured: 140 to 160 MB idle, most of it its own).
CLAUDE_PROCESS_BYTES = 160 * 2**20
#: Left over for everything else when another process is started, in bytes.
MARGIN_BYTES = 64 * 2**20

#: Pieces of memory from this size on, in bytes, are given back to the host as soon as they are freed.
LARGE_PIECE_BYTES = 2**20
_M_MMAP_THRESHOLD = -3

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def give_back_what_is_freed() -> None:
    """Have large pieces of memory returned to the host at once.

    glibc raises this threshold by itself to the largest piece that was ever freed, up to 32 MiB, and then keeps
    such pieces: after a few requests with large images, hundreds of megabytes. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_PIECE_BYTES)


def total_bytes() -> int:
    """Memory of this host, or of the control group that the service is in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max")
    return total if limit is None else min(total, limit)


def available_bytes() -> int:
    """What could still be used without swapping: MemAvailable, or what the control group leaves."""
    available = 0
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit is None or used is None:
        return available
    # Cached file content is counted as used, but is given up when it is needed.
    return min(available, max(0, limit - used + _cached()))


def room(processes: int = 1) -> bool:
    """Whether there is memory for so many more claude processes."""
    return available_bytes() >= processes * CLAUDE_PROCESS_BYTES + MARGIN_BYTES


def short() -> bool:
    """Whether memory is so short that what is not in use should be given up."""
    return available_bytes() < MARGIN_BYTES


def _cgroup(name: str) -> int | None:
    """A figure of the service's own control group (version 2); None for no limit, or where there is none."""
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rsplit("::", 1)[-1].lstrip("/")
        text = (_CGROUP / own / name).read_text().strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() else None


def _cached() -> int:
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rsplit("::", 1)[-1].lstrip("/")
        for line in (_CGROUP / own / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
