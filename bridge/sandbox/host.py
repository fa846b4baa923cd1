"""This host: its memory, its processes (read from /proc), and the Unix user that the CLIs run as."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bridge.errors import SettingsError

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
_PAGE = os.sysconf("SC_PAGE_SIZE")

#: Used where it exists; the files in deploy/ create it.
DEFAULT_USER = "cli-bridge-run"
#: What changing to another user and looking after its processes and files takes: CAP_CHOWN, CAP_DAC_OVERRIDE,
#: CAP_KILL, CAP_SETGID, CAP_SETUID; see capabilities(7). Root has all.
_NEEDED = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7


# --- memory ----


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


def has_room(processes: int = 1) -> bool:
    """Whether there is memory for so many more claude processes."""
    return available_bytes() >= processes * CLAUDE_PROCESS_BYTES + MARGIN_BYTES


def is_short() -> bool:
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


# --- processes ----


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of one process; 0 where it has gone. What processes share counts for each of them."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used; 0 where it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def descendants(pid: int | str = "self") -> Iterator[int]:
    """The process ids of a process's children, and of theirs."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def children(pid: int | str = "self") -> list[int]:
    """The process ids of a process's children."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file:
                found += map(int, file.readall().split())
    except OSError:
        pass  # it ends just now
    return found


# --- the user of the CLIs ----


class User(msgspec.Struct, frozen=True):
    """A Unix user of this host."""

    name: str
    uid: int
    gid: int
    home: Path


def find_user(wanted: str | None) -> User | None:
    """The user for the CLIs; None for the service's own.

    `wanted` is BRIDGE_CLI_USER. Raises SettingsError where it names a user that cannot be used.
    """
    try:
        entry = pwd.getpwnam(wanted or DEFAULT_USER)
    except KeyError:
        if wanted:
            raise SettingsError([f"BRIDGE_CLI_USER names a user that does not exist ({wanted})"]) from None
        return None
    if entry.pw_uid == os.geteuid():
        return None
    if not may_change_users(capabilities()) or shutil.which("setpriv") is None:
        if wanted:
            raise SettingsError(["BRIDGE_CLI_USER needs setpriv, and a service that may change users, such as root"])
        return None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def may_change_users(capabilities: int) -> bool:
    """Whether a process with these effective capabilities (a mask, as in /proc/PID/status) can be given one."""
    return capabilities & _NEEDED == _NEEDED


def user_warning(user: User | None) -> str | None:
    """What the operator should know at the start; None where all is well."""
    if user is None and os.geteuid() == 0:
        return (
            f"Warning: the CLIs run as root, because there is no user {DEFAULT_USER}. Make one: "
            f"useradd --system --create-home --shell /usr/sbin/nologin {DEFAULT_USER}"
        )
    return None


def capabilities() -> int:
    """The effective capabilities of this process, as a mask."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
