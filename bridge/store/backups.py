"""When the last backup was made, and whether one failed since: backup.json."""

from __future__ import annotations

from typing import Any

from gevent.lock import BoundedSemaphore

from bridge.clock import Clock, iso
from bridge.errors import StoreError
from bridge.store.document import Document


class Backups:
    """What is known of the backups of a data folder. `cli-bridge backup` tells it how each one went."""

    def __init__(self, document: Document, clock: Clock) -> None:
        """A file that cannot be read keeps nobody from his work; it counts as a failed backup."""
        self._document = document
        self._clock = clock
        self._saving = BoundedSemaphore(1)
        self._notes: dict[str, Any] = dict.fromkeys(("lastGoodAt", "lastGoodBytes", "lastFailure"))
        try:
            content = document.load() or {}
            self._notes |= {name: content[name] for name in self._notes if name in content}
        except StoreError as error:
            self._notes["lastFailure"] = {"at": iso(clock.now()), "error": error.message}

    def notes(self) -> dict[str, Any]:
        """`lastGoodAt` (ISO time), `lastGoodBytes`, and `lastFailure` (`at`, `error`) where none worked since."""
        return dict(self._notes)

    def note_good(self, size: int) -> None:
        """One of `size` bytes was made. Raises BridgeError storage_failed."""
        self._note({"lastGoodAt": iso(self._clock.now()), "lastGoodBytes": size, "lastFailure": None})

    def note_failure(self, error: str) -> None:
        """One failed, for the reason that `error` says. Raises BridgeError storage_failed."""
        failure = {"at": iso(self._clock.now()), "error": error[:500]}
        self._note({**self._notes, "lastFailure": failure})

    def _note(self, notes: dict[str, Any]) -> None:
        # Known at once, saved as soon as the disk allows: a full disk is why backups fail.
        self._notes = notes
        with self._saving:
            self._document.save(notes)
