"""A file that the operator may write by hand, and the bridge only reads: prices.json, models.json."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from bridge.clock import Clock
from bridge.errors import StoreError

T = TypeVar("T")

#: Least time between two looks at a file, in seconds.
LOOK_S = 1.0


class OperatorFile(Generic[T]):
    """What such a file holds. It is looked at again when it has changed.

    One that cannot be used any more leaves the last good one in force; `problem` then says what is wrong.
    """

    def __init__(self, path: Path, clock: Clock, parse: Callable[[bytes], T], absent: T, hint: str) -> None:
        """`parse` raises ValueError that says what is wrong; `absent` holds where there is no file.

        Raises StoreError, with `hint`, where the file cannot be used at the start.
        """
        self.problem: str | None = None
        self._path = path
        self._clock = clock
        self._parse = parse
        self._absent = absent
        self._stamp = _stamp(path)
        self._next_look = clock.monotonic() + LOOK_S
        try:
            self._value = self._read()
        except ValueError as error:
            raise StoreError(f"{path.name} cannot be used: {error}.", hint) from None

    @property
    def value(self) -> T:
        """What holds now."""
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._value, self.problem = self._read(), None
                except ValueError as error:
                    self.problem = f"{self._path.name} cannot be used: {error}. The last good one stays in force."
        return self._value

    def _read(self) -> T:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return self._absent
        except OSError as error:
            raise ValueError(os.strerror(error.errno or 0)) from None
        return self._parse(data)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
