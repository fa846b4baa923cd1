"""Documents that all hosts of a cluster share: in Redis, with a copy in the data folder of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.errors import BridgeError, StoreError
from bridge.store.document import Document, Outdated
from bridge.store.redis import Cluster, name

#: What all hosts share; other documents are about one host.
SHARED = ("keys.json", "credentials.json", "credential-states.json", "admin.json")

_LOST = "The shared store has lost changes of {}."
_LOOK = "Ask your admin to look at it: 'cli-bridge cluster status' says more."

log = logging.getLogger("bridge")


def refresh(cluster: Cluster, documents: Iterable[SharedDocument]) -> None:
    """Load those that another host has changed. Raises BridgeError storage_failed."""
    flat = cluster.command("HGETALL", name("versions"))
    versions = dict(zip(flat[::2], flat[1::2], strict=True))
    for each in documents:
        if int(versions.get(each.path.name.encode(), 0)) != each.version:
            each.refresh()


class SharedDocument(Document):
    """A document whose content is what Redis has. Each save says on which version it is built, and fails with Outdated
    where that is not the last one any more. What is loaded stays in memory until `refresh` finds another version.

    The file is a copy, so that the data folder can be used without the cluster. A copy that cannot be written is no
    reason to refuse a change that all hosts have.
    """

    def __init__(self, cluster: Cluster, path: Path, *, keeps_previous: bool = True) -> None:
        """Load it. Raises StoreError where it cannot be used."""
        super().__init__(path, keeps_previous=keeps_previous)
        self._cluster = cluster
        self._asking, self._copying = BoundedSemaphore(1), BoundedSemaphore(1)
        #: grows by one with each change; 0: nobody has ever saved it
        self.version = 0
        self._content: dict[str, Any] | None = None
        try:
            self.refresh()
        except BridgeError as error:
            raise StoreError(error.message, error.hint) from None

    def load(self) -> dict[str, Any] | None:
        """The content as it was loaded last. Does not wait."""
        return self._content

    def refresh(self) -> bool:
        """See Document. One at a time: who waits for it sees what was there when it began to wait, or later."""
        with self._asking:
            return self._look()

    def save(self, content: Mapping[str, Any]) -> None:
        """See Document."""
        made = {"schema": self.schema, **content}
        data = msgspec.json.encode(made)
        # No look meanwhile: what it found could be newer than what is saved, and would be forgotten again.
        with self._asking:
            version = int(self._cluster.call("cb_save", self._name, self.version, data))
            if version > 0:
                self._use(version, msgspec.json.decode(data))
            elif self._look():
                raise Outdated
            else:
                raise BridgeError("storage_failed", _LOST.format(self._name), _LOOK, retry_after=5)

    @property
    def stamp(self) -> int | None:
        """See Document."""
        return self.version or None

    @property
    def absent(self) -> bool:
        """See Document."""
        return not self.version

    @property
    def _name(self) -> str:
        return self.path.name

    @property
    def _key(self) -> str:
        return name("doc", self._name)

    def _look(self) -> bool:
        return self._take(*self._cluster.pipe([("HGET", name("versions"), self._name), ("GET", self._key)]))

    def _take(self, version: bytes | None, data: bytes | None) -> bool:
        """Use what was found where it is newer; whether it was."""
        found = int(version or 0)
        if found < self.version or (found > 0) != (data is not None):
            raise BridgeError("storage_failed", _LOST.format(self._name), _LOOK, retry_after=5)
        if data is None or found == self.version:
            return False
        try:
            self._use(found, self.parse(data))
            for tell in list(self.watchers):
                tell()
        except StoreError as error:
            raise BridgeError("storage_failed", error.message, error.hint, retry_after=5) from None
        return True

    def _use(self, version: int, content: dict[str, Any]) -> None:
        self.version, self._content = version, content
        # Nobody waits for the copy: what holds is what the server has.
        gevent.spawn(self._copy)

    def _copy(self) -> None:
        with self._copying:
            try:
                super().save({key: value for key, value in (self._content or {}).items() if key != "schema"})
            except BridgeError as error:
                log.warning("the copy of %s could not be written: %s", self._name, error.message)
