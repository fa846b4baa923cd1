"""The user that the CLIs run as: another one than the service's, where the service may change users."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import msgspec

from bridge.errors import SettingsError

#: Used where it exists; the files in deploy/ create it.
DEFAULT_USER = "cli-bridge-run"
#: What changing to another user and looking after its processes and files takes: CAP_CHOWN, CAP_DAC_OVERRIDE,
#: CAP_KILL, CAP_SETGID, CAP_SETUID; see capabilities(7). Root has all.
_NEEDED = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7


class Account(msgspec.Struct, frozen=True):
    """A user of this host."""

    name: str
    uid: int
    gid: int
    home: Path


def find(wanted: str | None) -> Account | None:
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
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def may_change_users(capabilities: int) -> bool:
    """Whether a process with these effective capabilities (a mask, as in /proc/PID/status) can be given one."""
    return capabilities & _NEEDED == _NEEDED


def warning(account: Account | None) -> str | None:
    """What the operator should know at the start; None where all is well."""
    if account is None and os.geteuid() == 0:
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
