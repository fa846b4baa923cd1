"""How much memory there is, and what is left of it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import msgspec

#: What a claude process takes while it works, in bytes (measured: 140 to 160 MB idle, most of it its own).
CLAUDE_PROCESS_BYTES = 160 * 2**20
#: Left over for everything else when another process is started, in bytes.
MARGIN_BYTES = 64 * 2**20

#: Pieces of memory from this size on, in bytes, are given back to the host as soon as they are freed.
LARGE_PIECE_BYTES = 2**20
_M_MMAP_THRESHOLD = -3

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")
#: A limit above this stands for none, in bytes.
_NO_LIMIT = 2**60


class _Group(msgspec.Struct, frozen=True):
    """A control group with a limit, in bytes. `cached`: file content that is given up when memory is needed, and
    that MemAvailable does not count as used either."""

    limit: int
    used: int
    cached: int


def give_back_what_is_freed() -> None:
    """Have large pieces of memory returned to the host at once.

    glibc raises this threshold by itself to the largest piece that was ever freed, up to 32 MiB, and then keeps
    such pieces: after a few requests with large images, hundreds of megabytes. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_PIECE_BYTES)


def total_bytes() -> int:
    """Memory of this host, or of the control groups that the service is in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(group.limit for group in _groups())])


def available_bytes() -> int:
    """What could still be used without swapping: MemAvailable, or what the control groups leave."""
    available = 0
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    return min([available, *(max(0, group.limit - group.used + group.cached) for group in _groups())])


def room(processes: int = 1) -> bool:
    """Whether there is memory for so many more claude processes."""
    return available_bytes() >= processes * CLAUDE_PROCESS_BYTES + MARGIN_BYTES


def short() -> bool:
    """Whether memory is so short that what is not in use should be given up."""
    return available_bytes() < MARGIN_BYTES


def _groups() -> list[_Group]:
    """The control groups with a limit that this process is in: its own, and those above. Both versions."""
    found = []
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            names = ("memory.max", "memory.current", "")
            root = _CGROUP
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            root = _CGROUP / "memory"
        else:
            continue
        # In a container the name may be the host's; then only the top is there, and is the container's own.
        own = root / name.lstrip("/")
        for folder in (own, *(above for above in own.parents if above.is_relative_to(root))):
            group = _group(folder, *names)
            if group is not None:
                found.append(group)
    return found


def _group(folder: Path, limit_name: str, used_name: str, prefix: str) -> _Group | None:
    """None where there is no limit, or no such group."""
    try:
        text = (folder / limit_name).read_text().strip()
        if not text.isdigit() or int(text) >= _NO_LIMIT:
            return None
        used = int((folder / used_name).read_text())
        figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = sum(int(figures.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        return _Group(int(text), used, cached)
    except (OSError, ValueError):
        return None
