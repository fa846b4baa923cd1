"""The machine: Python, users, memory, clock."""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bridge.clock import Clock, iso
from bridge.limits import Moment
from bridge.ops.doctor import Finding, fail, ok, warn
from bridge.providers.pool import RESERVED_BYTES, slots, warm_processes
from bridge.sandbox.host import CLAUDE_PROCESS_BYTES, DEFAULT_USER, may_change_users, total_bytes
from bridge.settings import Settings
from bridge.store.folder import Store

#: Before this the clock must be wrong: the program is newer.
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
#: struct timex of adjtimex(2), with room to spare, and what it returns for a clock that no time service sets.
_TIMEX_BYTES, _TIME_ERROR = 512, 5


def check(settings: Settings) -> Iterator[Finding]:
    """What the host must have."""
    yield ok("Python", platform.python_version())
    if shutil.which("setpriv"):
        yield ok("setpriv", "found: a CLI ends with the server, however it ends")
    else:
        yield fail(
            "setpriv", "not found: CLIs would outlive a server that is killed", "Install the package util-linux."
        )
    yield from _users(settings)
    yield from _memory(settings)
    yield from _clock(settings)


def _users(settings: Settings) -> Iterator[Finding]:
    """Who runs the service: the process that has the data folder, or else this command."""
    holder = _holder(settings)
    pid = holder if holder is not None else os.getpid()
    uid, capabilities = _identity(pid)
    name = _user_name(uid)
    if uid == 0:
        yield warn("user", "root", "Run the service as a user of its own; deploy/install.sh sets that up.")
    else:
        yield ok("user", f"{name}" + ("" if holder is None else " (the running server)"))
    wanted = settings.cli_user or DEFAULT_USER
    may_switch = uid == 0 or may_change_users(capabilities)
    try:
        pwd.getpwnam(wanted)
    except KeyError:
        if may_switch:
            todo = f"Make a user that owns nothing: useradd --system --shell /usr/sbin/nologin {wanted}"
            yield warn("user of the CLIs", f"the same as the service's: there is no user {wanted}", todo)
            return
    if may_switch:
        yield ok("user of the CLIs", wanted)
    else:
        yield warn(
            "user of the CLIs",
            f"{name}, the same as the service's: it may not change users",
            "The unit in deploy/systemd gives it that right; a container cannot. Else give this user nothing to read.",
        )


def _memory(settings: Settings) -> Iterator[Finding]:
    total, runs, warm = total_bytes(), slots(settings), warm_processes(settings)
    # Every slot may be taken by claude, while the pool is being filled again.
    needed = RESERVED_BYTES + (runs + warm) * CLAUDE_PROCESS_BYTES
    found = f"{_gib(total)} for {runs} runs at once and {warm} processes kept ready"
    if needed > total and settings.max_concurrent is not None:
        fits = max(1, (total - RESERVED_BYTES) // CLAUDE_PROCESS_BYTES - warm)
        yield warn("memory", f"{found}; they may need {_gib(needed)}", f"Set BRIDGE_MAX_CONCURRENT to {fits} or less.")
    else:
        yield ok("memory", found)


def _clock(settings: Settings) -> Iterator[Finding]:
    now = Clock().now()
    if now < _EARLIEST:
        yield fail("clock", f"it says {iso(now)}", "Set it: timedatectl set-ntp true")
    elif not _is_set_by_network():
        yield warn(
            "clock", f"{iso(now)}; no time service keeps it right", "Switch on a time service: timedatectl set-ntp true"
        )
    else:
        yield ok("clock", iso(now))
    local = datetime.fromtimestamp(now, settings.zone)
    ends = iso(Moment.of(now, settings.zone).ends_at("day"))
    yield ok("zone", f"{settings.zone}, where it is {local:%H:%M}; today's caps end at {ends}")


def _is_set_by_network() -> bool:
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
        return state != _TIME_ERROR
    except (OSError, AttributeError):
        return True  # it cannot be found out


def _holder(settings: Settings) -> int | None:
    try:
        facts = Store.holder(settings.data_dir)
    except OSError:
        return None  # the check of the folder says what is wrong with it
    pid = None if facts is None else facts.get("pid")
    return pid if isinstance(pid, int) else None


def _identity(pid: int) -> tuple[int, int]:
    """(user id, effective capabilities) of a process."""
    fields = {}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value.split()
        return int(fields["Uid"][1]), int(fields["CapEff"][0], 16)
    except (OSError, KeyError, ValueError, IndexError):
        return os.geteuid(), 0


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
