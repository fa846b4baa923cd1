"""Small JSON files. A `Document` is replaced as a whole by the bridge: keys.json, credentials.json, admin.json,
usage.json. An `OperatorFile` is written by hand, and the bridge only reads it: prices.json, models.json."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from bridge.clock import Clock
from bridge.errors import StoreError
from bridge.store.files import in_thread, keep_previous, storage_failed, sync_folder, write_private

T = TypeVar("T")

#: Least time between two looks at a file, in seconds.
LOOK_S = 1.0

REPAIR_HINT = "Run 'cli-bridge doctor --repair', or put a copy of the data folder from a backup in its place."


SCHEMAS: dict[str, int] = {"keys.json": 1, "credentials.json": 1, "admin.json": 1, "usage.json": 1}
"""Document -> the version of its schema that this program reads and writes; others have version 1.
folder.py has the steps from older ones."""


class Outdated(Exception):
    """Another host has changed it meanwhile. What it has now is loaded: repeat the step from there."""


class Document:
    """A JSON object on disk, with the version of its schema.

    A crash at any point leaves the old content or the new. One older version is kept beside it as
    `NAME.previous`, for a person (or `doctor --repair`) to fall back to; it is never used by itself.
    """

    def __init__(self, path: Path, schema: int | None = None, *, keeps_previous: bool = True) -> None:
        """`schema`: the version to read and write, if not that of `SCHEMAS`. `keeps_previous`: False for what must be
        gone once it was removed."""
        self.path = path
        #: called when another host has changed it, after it was loaded; must not wait or raise. A file has no other
        #: writer
        self.watchers: list[Callable[[], None]] = []
        self.previous = path.with_name(path.name + ".previous")
        self.schema = SCHEMAS.get(path.name, 1) if schema is None else schema
        self._keeps_previous = keeps_previous

    def load(self) -> dict[str, Any] | None:
        """The content; None where there is neither the file nor its previous version.

        Raises StoreError for anything that is not a whole object of the right schema version.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            if self.absent:
                return None
            raise StoreError(f"{self.path.name} is missing.", REPAIR_HINT) from None
        except OSError as error:
            raise StoreError(
                f"{self.path.name} cannot be read ({os.strerror(error.errno or 0)}).",
                "Give the user that runs cli-bridge access to its data folder.",
            ) from None
        return self.parse(data)

    def parse(self, data: bytes) -> dict[str, Any]:
        """Check the bytes of this document. Raises StoreError that says what is wrong with them."""
        name = self.path.name
        if not data.strip():
            raise StoreError(f"{name} is empty.", REPAIR_HINT)
        try:
            content = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(f"{name} is damaged: {error}.", REPAIR_HINT) from None
        if not isinstance(content, dict):
            raise StoreError(f"{name} is damaged: it does not hold a JSON object.", REPAIR_HINT)
        if content.get("schema") != self.schema:
            raise StoreError(
                f"{name} has schema {content.get('schema')!r}; this version of cli-bridge reads {self.schema}.",
                "Use the version of cli-bridge that wrote it, or restore a backup made by this one.",
            )
        return content

    def save(self, content: Mapping[str, Any]) -> None:
        """Replace the content; it is on the disk when this returns.

        `content` is read before the first switch to another greenlet. Saves of one document must
        not overlap. Raises BridgeError storage_failed; the file then holds what it held before. One that several
        hosts share raises Outdated where another has changed it.
        """
        data = msgspec.json.format(msgspec.json.encode({"schema": self.schema, **content}), indent=1)
        try:
            in_thread(self._replace, data + b"\n")
        except OSError as error:
            raise storage_failed(error) from error

    def _replace(self, data: bytes) -> None:
        new = self.path.with_name(self.path.name + ".new")
        write_private(new, data)
        if self._keeps_previous and self.path.exists():
            keep_previous(self.path)
        os.replace(new, self.path)
        sync_folder(self.path.parent)

    def refresh(self) -> bool:
        """Load what another host may have changed; whether there was anything. Raises BridgeError storage_failed."""
        return False

    @property
    def stamp(self) -> Hashable | None:
        """What is another one after each change, whoever made it; None where there is no content."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    @property
    def absent(self) -> bool:
        """Whether there is neither the file nor its previous version."""
        return not (self.path.exists() or self.previous.exists())


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
