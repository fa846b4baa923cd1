"""A control group with a limit on memory, below the one that this process is in. Needs root, or a delegated group."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A group whose processes together get `limit` bytes, and no swap. Use it in a `with`; it must be empty at the
    end. Raises OSError where this host or this user cannot have one."""

    def __init__(self, limit: int) -> None:
        self._second = (_ROOT / "cgroup.controllers").exists()
        own = _own("" if self._second else "memory")
        root = _ROOT if self._second else _ROOT / "memory"
        self._above = root / own.lstrip("/")
        self._folder = self._above / f"cli-bridge-bench-{os.getpid()}"
        self._limit = limit

    def __enter__(self) -> MemoryGroup:
        if self._second:
            (self._above / "cgroup.subtree_control").write_text("+memory")
        self._folder.mkdir()
        self._write("memory.max" if self._second else "memory.limit_in_bytes", self._limit)
        if self._second:
            self._write("memory.swap.max", 0)
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + 10
        while (self._folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._folder.rmdir()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is started in this block, and what it reads and writes, belongs to the group for good."""
        self._write("cgroup.procs", os.getpid())
        try:
            yield
        finally:
            (self._above / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def kept(self) -> int:
        """What is used now without file contents, in bytes: what cannot be given up."""
        figures = _table(self._read("memory.stat"))
        if self._second:
            return figures["anon"] + figures["shmem"] + figures["kernel"]
        return figures["total_rss"] + figures["total_shmem"] + int(self._read("memory.kmem.usage_in_bytes"))

    @property
    def read_again(self) -> int:
        """File contents that had been given up and were needed again, in bytes. If it grows, it is too small."""
        name = "workingset_refault_file" if self._second else "total_workingset_refault_file"
        return _table(self._read("memory.stat"))[name] * os.sysconf("SC_PAGE_SIZE")

    @property
    def killed(self) -> int:
        """Processes that the kernel has killed because there was no memory left."""
        return _table(self._read("memory.events" if self._second else "memory.oom_control"))["oom_kill"]

    def _read(self, name: str) -> str:
        return (self._folder / name).read_text()

    def _write(self, name: str, value: int) -> None:
        (self._folder / name).write_text(str(value))


def _own(controller: str) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controller in controllers.split(","):
            return name
    raise OSError(f"this host has no control groups for {controller or 'anything'}")


def _table(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, text.splitlines())}
