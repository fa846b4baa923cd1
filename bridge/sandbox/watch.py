"""Keeps CLIs within bounds that the kernel does not keep for them: memory, and the number of processes.

A control group (MemoryMax and TasksMax of the unit in deploy/) is the harder bound for all of them
together; this one is for each, and says which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import gevent

from bridge.sandbox.footprint import descendants, resident_bytes

#: How often is looked, in seconds.
INTERVAL_S = 1.0
#: The most memory (RSS) of one CLI with all its processes, in bytes. claude takes up to 300 MB in a long
#: answer, codex up to 600 MB after thousands of runs.
MOST_BYTES = 1536 * 2**20
#: The most processes of one CLI; both have one to three.
MOST_PROCESSES = 64


def trouble(pid: int) -> str | None:
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
            why = trouble(pid)
            if why is not None:
                end(pid, why)
            gevent.sleep(0)
