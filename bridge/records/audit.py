"""The audit: every change by an admin, one line each in audit.jsonl, which only grows."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from bridge.clock import Clock, iso
from bridge.errors import BridgeError
from bridge.store.journal import Journal, intact, read_backwards


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
        self._file.write(msgspec.json.encode(entry))

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


def _has(entry: dict[str, Any], text: str) -> bool:
    said = msgspec.json.encode([value for name, value in entry.items() if name != "crc"]).decode()
    return text in said.lower().replace("_", " ") or text in said.lower()
