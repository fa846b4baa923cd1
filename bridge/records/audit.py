"""The audit: every change by an admin, one line each in audit.jsonl, which only grows; or in the store that several
hosts share."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bridge.clock import Clock, iso
from bridge.errors import BridgeError
from bridge.store.journal import Journal, intact, read_backwards

if TYPE_CHECKING:
    from bridge.store.redis import Cluster

#: Entries that are asked for at a time where hosts share them.
_PART = 200
_STREAM = "{cb}:audit"

log = logging.getLogger("bridge")


class Audit:
    """Who did what to which key or setting, when, and from where."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Raises StoreError where the file cannot be opened."""
        self._file = Journal(path)
        self._clock = clock

    def write(
        self, action: str, subject: str, *, actor: str, address: str, before: Any = None, after: Any = None
    ) -> None:
        """Add an entry; on the disk when this returns. `before` and `after` are JSON values without secrets.

        Raises BridgeError storage_failed.
        """
        entry = {
            "at": iso(self._clock.now()),
            "action": action,
            "subject": subject,
            "actor": actor,
            "address": address,
            "before": before,
            "after": after,
        }
        self._add(msgspec.json.encode(entry))

    def _add(self, entry: bytes) -> None:
        self._file.write(entry)

    def page(
        self, before: str | None = None, limit: int = 100, text: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Entries, newest first, those older than the id `before`; and the id to go on from, if there are more. `text`:
        only those with it anywhere, whatever the case of its letters."""
        wanted = text.lower() if text else ""
        found: list[dict[str, Any]] = []
        # No number of a line is longer; Python refuses to read one of thousands of digits.
        ceiling = int(before) if before and before.isdecimal() and len(before) < 20 else None
        for line in read_backwards(self._file.path):
            if not intact(line):
                continue
            entry = msgspec.json.decode(line)
            number = entry.pop("seq")
            if (ceiling is not None and number >= ceiling) or not _has(entry, wanted):
                continue
            if len(found) == limit:
                return found, found[-1]["id"]
            del entry["crc"]
            found.append({"id": str(number), **entry})
        return found, None

    def close(self) -> None:
        """Close the file. Never raises for the disk: those who wrote were told."""
        with contextlib.suppress(BridgeError):
            self._file.close()


class SharedAudit(Audit):
    """The audit of several hosts. Each host's own file has what was changed there."""

    def __init__(self, cluster: Cluster, path: Path, clock: Clock) -> None:
        """Raises StoreError where the file cannot be opened."""
        super().__init__(path, clock)
        self._cluster = cluster

    def _add(self, entry: bytes) -> None:
        self._cluster.call("cb_audit", entry)
        try:
            self._file.write(entry)
        except BridgeError as error:
            log.warning("an entry of the audit could not be copied to audit.jsonl: %s", error.message)

    def page(
        self, before: str | None = None, limit: int = 100, text: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """See Audit. Raises BridgeError storage_failed."""
        wanted = text.lower() if text else ""
        found: list[dict[str, Any]] = []
        for id, entry in _newest_first(self._cluster, before):
            if _has(entry, wanted):
                if len(found) == limit:
                    return found, found[-1]["id"]
                found.append({"id": id, **entry})
        return found, None


def _newest_first(cluster: Cluster, before: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    end = f"({before}" if before and re.fullmatch(r"\d{1,19}-\d{1,19}", before) else "+"
    while rows := cluster.command("XREVRANGE", _STREAM, end, "-", "COUNT", _PART):
        for id, fields in rows:
            yield id.decode(), msgspec.json.decode(fields[1])
        end = f"({rows[-1][0].decode()}"


def entries(path: Path) -> list[dict[str, Any]]:
    """All entries of a file, oldest first; none where there is no file."""
    lines = read_backwards(path) if path.exists() else ()
    return [_plain(line) for line in lines if intact(line)][::-1]


def unshare(cluster: Cluster, path: Path) -> int:
    """Write all entries that hosts share into a new file; how many. Raises BridgeError storage_failed, StoreError."""
    found = [entry for _, entry in _newest_first(cluster)]
    file = Journal(path)
    for entry in reversed(found):
        file.append(msgspec.json.encode(entry))
    file.sync()
    file.close()
    return len(found)


def _plain(line: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = msgspec.json.decode(line)
    return {name: value for name, value in entry.items() if name not in ("seq", "crc")}


def _has(entry: dict[str, Any], text: str) -> bool:
    said = msgspec.json.encode([value for name, value in entry.items() if name != "crc"]).decode()
    return text in said.lower().replace("_", " ") or text in said.lower()
