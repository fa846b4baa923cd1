"""Traces: for each run a file with all that went between bridge, CLI, gate and provider, secrets masked.

For whoever looks into one answer, and for a while: off unless BRIDGE_TRACE_DIR is set, and it stops by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from bridge.clock import Clock, iso
from bridge.masks import masked
from bridge.store.files import open_private, private_folder

#: The most that all files of the folder hold together, in bytes, and how long a server writes them, in seconds.
MOST_BYTES, LONGEST_S = 2**30, 24 * 3600.0

log = logging.getLogger("bridge")


class TraceFolder:
    """The traces of one server. What goes wrong with it ends it, and never a run."""

    def __init__(self, folder: Path, clock: Clock, secrets: Callable[[], Iterable[str | None]]) -> None:
        """Begin, for `LONGEST_S`. What `secrets` gives is never written. What was left in `folder` counts for the
        bound."""
        self._folder = folder
        self._clock = clock
        self._secrets = secrets
        self._ends_at = clock.monotonic() + LONGEST_S
        self._shown_end = iso(clock.now() + LONGEST_S)
        #: why nothing is written any more
        self._ended: str | None = None
        self._bytes = 0
        try:
            private_folder(folder)
            self._bytes = sum(path.stat().st_size for path in trace_files(folder))
        except OSError as error:
            self.end(f"the folder cannot be used ({error.strerror})")
        self.look_at_bounds()
        if self.active:
            log.warning("BRIDGE_TRACE_DIR is set: what is said in each run is written there until %s", self._shown_end)

    @property
    def active(self) -> bool:
        """Whether runs are traced."""
        return self._ended is None

    def look_at_bounds(self) -> None:
        """End it where its time is up, or its room is used."""
        if self._ended is None and self._clock.monotonic() >= self._ends_at:
            self.end("24 hours have passed")
        if self._ended is None and self._bytes >= MOST_BYTES:
            self.end("its files hold 1 GB")

    @property
    def state(self) -> str:
        """A sentence for the operator."""
        self.look_at_bounds()
        if self.active:
            return (
                f"BRIDGE_TRACE_DIR is set: what is said in each run is written there until {self._shown_end}, "
                f"or until its files hold 1 GB (now {self._bytes / 2**20:.0f} MB)."
            )
        return f"BRIDGE_TRACE_DIR is set, but nothing is written any more: {self._ended}."

    def begin(self, run_id: str, about: dict[str, Any]) -> Trace | None:
        """The trace of a run, which begins with what it is `about`; None where nothing is written any more."""
        self.look_at_bounds()
        if not self.active:
            return None
        try:
            fd = open_private(self._folder / f"{run_id}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            self.end(f"the folder cannot be used ({error.strerror})")
            return None
        trace = Trace(self, fd, self._clock.monotonic())
        trace.write({"run": run_id, "at": iso(self._clock.now()), **about})
        return trace

    def end(self, why: str) -> None:
        """Write nothing any more."""
        self._ended = why
        log.warning("BRIDGE_TRACE_DIR: no run is traced any more, because %s", why)

    def masked(self, text: str) -> str:
        """A text without secrets."""
        return masked(text, *self._secrets())

    def passed_s(self, since: float) -> float:
        """Seconds since a monotonic time."""
        return self._clock.monotonic() - since

    def admit(self, size: int) -> bool:
        """Whether so many bytes more may be written; they count from now on."""
        self.look_at_bounds()
        if not self.active:
            return False
        if self._bytes + size > MOST_BYTES:
            self.end("its files hold 1 GB")
            return False
        self._bytes += size
        return True


class Trace:
    """The file of one run: a line of JSON for each thing that was said."""

    def __init__(self, folder: TraceFolder, fd: int, began: float) -> None:
        """`fd` becomes its own; `began` is a monotonic time."""
        self._folder = folder
        self._fd: int | None = fd
        self._began = began

    def note(self, source: str, target: str, data: bytes) -> None:
        """`source` (bridge, cli, gate, provider) said this to `target`. Never raises; late words are passed over."""
        if self._fd is not None:
            text = self._folder.masked(data.decode("utf-8", "replace"))
            passed_ms = round(1000 * self._folder.passed_s(self._began), 1)
            self.write({"ms": passed_ms, "from": source, "to": target, "text": text})

    def write(self, line: dict[str, Any]) -> None:
        """Add a line."""
        encoded = msgspec.json.encode(line) + b"\n"
        if self._fd is None or not self._folder.admit(len(encoded)):
            return
        try:
            os.write(self._fd, encoded)
        except OSError as error:
            self._folder.end(f"the disk refused it ({error.strerror})")

    def close(self) -> None:
        """The run has ended. Safe to call again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def trace_files(folder: Path) -> list[Path]:
    """The files of traces in a folder. Raises OSError."""
    return sorted(folder.glob("run_*.jsonl"))
