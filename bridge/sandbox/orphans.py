"""What CLIs leave behind: children of theirs, daemons in sessions of their own, and all after a kill -9.

Every child is marked in its environment, which its own children inherit. While the server lives it
adopts them (PR_SET_CHILD_SUBREAPER); what outlived a killed server is ended by the next one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from collections.abc import Collection
from pathlib import Path

import gevent

from bridge.sandbox import footprint

#: In the environment of every child: the process id of the bridge.
MARK = "CLI_BRIDGE_CHILD_OF"
_PR_SET_CHILD_SUBREAPER = 36
_MOST_GENERATIONS = 100


@functools.cache
def adopt() -> None:
    """Become the parent of what a child leaves behind, also of a daemon in a session of its own."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end(started: Collection[int]) -> None:
    """Kill what children have left behind: processes of ours now that are not among those `started` here.

    Looks until nothing was found twice: one that is just ending is no longer marked, and its own child
    is not yet ours.
    """
    quiet = 0
    for _ in range(_MOST_GENERATIONS):
        orphans = [pid for pid in footprint.children() if pid not in started and _is_ours(pid)]
        quiet = 0 if orphans else quiet + 1
        if quiet == 2:
            return
        for pid in orphans:
            _kill(pid)
        # Their own children become ours in turn.
        gevent.sleep(0.02)


def end_leavings(home: Path) -> int:
    """Kill what a killed server has left running with its files below `home`; how many there were.

    Only for the holder of the data folder whose scratch folder `home` is.
    """
    here, mark, ended = os.fsencode(home), f"{MARK}=".encode(), 0
    own = f"{MARK}={os.getpid()}".encode()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        environment = _environment(pid)
        if environment is not None and mark in environment and here in environment and own not in environment:
            _kill(pid)
            ended += 1
    return ended


def _is_ours(pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        # A child of this process that runs as another user can only be a CLI's.
        return True
    except OSError:
        return False
    return f"{MARK}={os.getpid()}".encode() in environment.split(b"\0")


def _environment(pid: int) -> bytes | None:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
