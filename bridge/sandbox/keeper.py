"""Keeps CLIs within bounds while they run, and ends what they leave behind.

The bounds are memory and the number of processes, which the kernel does not keep for a single CLI. A
control group (MemoryMax and TasksMax of the unit in deploy/) is the harder bound for all of them
together; this one is for each, and says which it was.

CLIs leave children behind, daemons in sessions of their own, and everything after a kill -9. Every child
is marked in its environment, which its own children inherit. While the server lives it adopts them
(PR_SET_CHILD_SUBREAPER); the next server ends what outlived a killed one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path

import gevent

from bridge.sandbox.host import children, descendants, resident_bytes

#: In the environment of every child: the process id of the bridge.
MARK = "CLI_BRIDGE_CHILD_OF"
_PR_SET_CHILD_SUBREAPER = 36
_MOST_GENERATIONS = 100

#: Seconds between two looks at the running CLIs.
INTERVAL_S = 1.0
#: The most memory (RSS) of one CLI with all its processes, in bytes. claude takes up to 300 MB in a long
#: answer, codex up to 600 MB after thousands of runs.
MOST_BYTES = 1536 * 2**20
#: The most processes of one CLI; both have one to three.
MOST_PROCESSES = 64


def trouble_of(pid: int) -> str | None:
    """What is wrong with the CLI whose process this is; None while it keeps its bounds."""
    pids = [pid, *islice(descendants(pid), MOST_PROCESSES)]
    if len(pids) > MOST_PROCESSES:
        return "it started too many processes"
    if sum(map(resident_bytes, pids)) > MOST_BYTES:
        return "it took too much memory"
    return None


def keep_watch(processes: Callable[[], Iterable[int]], end: Callable[[int, str], None]) -> None:
    """Look at all `processes()` for ever, and `end(pid, why)` those that went too far."""
    while True:
        gevent.sleep(INTERVAL_S)
        for pid in list(processes()):
            why = trouble_of(pid)
            if why is not None:
                end(pid, why)
            gevent.sleep(0)


@functools.cache
def adopt() -> None:
    """Become the parent of what a child leaves behind, also of a daemon in a session of its own."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(started: Collection[int]) -> None:
    """Kill what children have left behind: processes of ours now that are not among those `started` here.

    Looks until nothing was found twice: one that is just ending is no longer marked, and its own child
    is not yet ours.
    """
    quiet = 0
    for _ in range(_MOST_GENERATIONS):
        orphans = [pid for pid in children() if pid not in started and _is_ours(pid)]
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
