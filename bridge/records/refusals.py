"""The lines of refused requests: the first of a kind, and then how many more there were.

A refusal costs its sender nothing, so its lines must not be able to fill the disk.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bridge.clock import Clock
from bridge.types import RunRecord

#: Refusals of one key with one code of which each has a line of its own, and the seconds after which they begin anew.
FIRST, WINDOW_S = 5, 300.0


class _Kind:
    """The refusals of one key with one code."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0
        #: stands for all that have no line of their own
        self.last: RunRecord | None = None


class Refusals:
    """Writes the lines of refused requests."""

    def __init__(self, clock: Clock, write: Callable[[RunRecord], None]) -> None:
        self._clock = clock
        self._write = write
        self._kinds: dict[tuple[str, str | None], _Kind] = {}

    def note(self, line: RunRecord) -> None:
        """Write a line, or count it."""
        kind = self._kinds.get((line.key_name, line.code))
        if kind is None or self._clock.monotonic() - kind.began >= WINDOW_S:
            if kind is not None:
                self._write_rest(kind)
            kind = self._kinds[line.key_name, line.code] = _Kind(self._clock.monotonic())
        kind.count += 1
        if kind.count <= FIRST:
            self._write(line)
        else:
            times = kind.count - FIRST
            kind.last = msgspec.structs.replace(line, times=times, system_prompt=None, user_prompt=None)

    def flush(self, *, all: bool = False) -> None:
        """Write what was counted in windows that are over, or in `all`; call it now and then, and at the end."""
        now = self._clock.monotonic()
        for name, kind in list(self._kinds.items()):
            if all or now - kind.began >= WINDOW_S:
                del self._kinds[name]
                self._write_rest(kind)

    def _write_rest(self, kind: _Kind) -> None:
        if kind.last is not None:
            self._write(kind.last)
