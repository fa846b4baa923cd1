"""A journal of independent lines, which goes on by itself after a disk failure."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import BridgeError, StoreError
from bridge.store.journal import Journal


class LogFile:
    """Lines that nothing is computed from. A write that failed is lost; the next one is tried afresh."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError where the file cannot be opened."""
        self.path = path
        self._journal = Journal(path)

    @classmethod
    def create(cls, path: Path) -> LogFile:
        """The same while the server runs: raises BridgeError storage_failed."""
        try:
            return cls(path)
        except StoreError as error:
            raise _refused(error) from error

    def write(self, body: bytes) -> None:
        """Add a line, an encoded JSON object; on the disk when this returns. Raises BridgeError storage_failed."""
        try:
            self._write(body)
        except BridgeError:
            self._write(body)  # once more, into a new file where somebody has moved the old one away

    def _write(self, body: bytes) -> None:
        if self._journal.failed:
            self._reopen()
        self._journal.commit(self._journal.append(body))

    def close(self) -> None:
        """Close the file; it may not be written to afterwards."""
        try:
            self._journal.close()
        except BridgeError:
            pass  # whoever waited for those lines was told

    def _reopen(self) -> None:
        try:
            fresh = Journal(self.path)
        except StoreError as error:
            raise _refused(error) from error
        self.close()
        self._journal = fresh


def _refused(error: StoreError) -> BridgeError:
    return BridgeError("storage_failed", error.message, error.hint, retry_after=5)
