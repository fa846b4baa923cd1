"""The keys: who may use the bridge, and within which limits. Only hashes of them are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.keys.key import Key, KeyHash, check_details, check_name, from_disk, invalid, to_disk
from bridge.limits import Limits
from bridge.store.document import REPAIR_HINT, Document
from bridge.store.files import unbroken

__all__ = ["Key", "KeyBook", "KeyHash", "hash_of"]

T = TypeVar("T")
Keys = list[Key]  # inside the class, `list` is the method

#: What every secret begins with, so that scanners and people recognise one.
PREFIX = "cb_"
_LONGEST_RAW = 512


class KeyBook:
    """All keys, in memory and in keys.json.

    Every change is on the disk before it holds: a save that fails (BridgeError storage_failed)
    changes nothing. Finding a key costs the same however many there are.
    """

    def __init__(self, document: Document, clock: Clock) -> None:
        """Read the keys. Raises StoreError where they cannot be read as a whole."""
        self._document = document
        self._clock = clock
        self._changing = BoundedSemaphore(1)
        self._keys: dict[str, Key] = {}
        self._by_hash: dict[str, tuple[Key, KeyHash]] = {}
        rows = (document.load() or {}).get("keys", [])
        try:
            self._use({key.name: key for key in from_disk(rows)})
        except ValueError as error:
            raise StoreError(f"{document.path.name} is damaged: {error}.", REPAIR_HINT) from None

    def find(self, raw: str) -> Key:
        """The key that a raw secret opens.

        Raises BridgeError unauthorized (the same for malformed, unknown, revoked and rotated out),
        key_disabled or key_expired. One hash and one look-up; what is compared are digests, so the
        time it takes says nothing about the secret.
        """
        if raw and len(raw) <= _LONGEST_RAW and raw.isascii():
            found = self._by_hash.get(hash_of(raw))
            if found is not None and _holds(found[1], now := self._clock.now()):
                return _usable(found[0], now)
        raise BridgeError("unauthorized", "This key is not valid.")

    def current(self, key: Key) -> Key:
        """A key as it is by now, for somebody who has had it for a while. Raises like `find`."""
        now = self._keys.get(key.name)
        if now is None or now.created_at != key.created_at or now.revoked_at is not None:
            raise BridgeError("unauthorized", "This key is not valid any more.")
        return _usable(now, self._clock.now())

    def get(self, name: str, *, revoked: bool = False) -> Key:
        """The key of that name. Raises BridgeError not_found; also for a revoked one unless asked for."""
        key = self._keys.get(name)
        if key is None or (key.revoked_at is not None and not revoked):
            raise BridgeError("not_found", f"There is no key named {name[:50]!r}.", "GET /admin/keys lists them.")
        return key

    def list(self, *, revoked: bool = False) -> Keys:
        """All keys by name; revoked ones only if asked for."""
        keys = (self._keys[name] for name in sorted(self._keys))
        return [key for key in keys if revoked or key.revoked_at is None]

    def create(
        self,
        name: str,
        limits: Limits,
        *,
        expires_at: float | None = None,
        models: Sequence[str] | None = None,
        providers: Sequence[str] | None = None,
        note: str = "",
    ) -> tuple[Key, str]:
        """A new key and its secret, which nobody can find out again.

        The name of a revoked key may be used again; its usage goes on under the name. Raises
        BridgeError invalid_request, conflict or storage_failed.
        """
        raw = PREFIX + secrets.token_urlsafe(32)
        details = check_details(expires_at=expires_at, models=models, providers=providers, note=note)
        key = self._new(name, limits, hash_of(raw), raw[-4:], details)
        return key, raw

    def import_key(
        self,
        name: str,
        sha256: str,
        limits: Limits,
        *,
        created_at: float | None = None,
        note: str = "",
    ) -> Key:
        """Take over a key of which only the SHA-256 (hex) is known. Raises like `create`."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise BridgeError("invalid_request", "The hash must be a SHA-256 in hex.")
        return self._new(name, limits, sha256, "", check_details(note=note), created_at)

    def _new(
        self,
        name: str,
        limits: Limits,
        sha256: str,
        last4: str,
        details: dict[str, Any],
        created_at: float | None = None,
    ) -> Key:
        check_name(name)

        def change() -> tuple[Key, Key]:
            existing = self._keys.get(name)
            if existing is not None and existing.revoked_at is None:
                raise BridgeError("conflict", f"There is a key named {name!r} already.", "Choose another name.")
            if sha256 in self._by_hash:
                raise BridgeError("conflict", "Another key has this secret already.", "Rotate one of them.")
            at = self._clock.now() if created_at is None else created_at
            key = Key(name, (KeyHash(sha256),), limits, at, last4=last4, **details)
            return key, key

        return self._change(change)

    def update(self, name: str, /, **changes: Any) -> tuple[Key, Key]:
        """Change `limits` (those named; the others stay), expires_at, models, providers or note.

        Returns the key before and after. Raises BridgeError not_found, invalid_request or storage_failed.
        """
        limits = changes.pop("limits", Limits())
        details = check_details(**changes)

        def change() -> tuple[Key, tuple[Key, Key]]:
            before = self.get(name)
            after = msgspec.structs.replace(before, limits=before.limits.merge(limits), **details)
            return after, (before, after)

        return self._change(change)

    def rotate(self, name: str, grace_s: float = 0) -> tuple[Key, str]:
        """Give the key a new secret; the old one works for `grace_s` more seconds.

        A secret that is still in the grace of an earlier rotation stops working at once. Raises
        BridgeError not_found, invalid_request or storage_failed.
        """
        if isinstance(grace_s, bool) or not 0 <= grace_s <= 366 * 86400:
            raise invalid("graceSeconds", "must be a number of seconds from 0 to a year")
        raw = PREFIX + secrets.token_urlsafe(32)

        def change() -> tuple[Key, Key]:
            before = self.get(name)
            old = (KeyHash(before.hashes[0].sha256, self._clock.now() + grace_s),) if grace_s else ()
            after = msgspec.structs.replace(before, hashes=(KeyHash(hash_of(raw)), *old), last4=raw[-4:])
            return after, after

        return self._change(change), raw

    def revoke(self, name: str) -> Key:
        """End a key for good; its name and its usage stay. Raises BridgeError not_found, storage_failed."""
        return self._set(name, hashes=(), revoked_at=self._clock.now())

    def disable(self, name: str) -> Key:
        """Refuse a key until it is enabled again. Raises BridgeError not_found or storage_failed."""
        return self._set(name, disabled=True)

    def enable(self, name: str) -> Key:
        """Take a disabled key again. Raises BridgeError not_found or storage_failed."""
        return self._set(name, disabled=False)

    def _set(self, name: str, **fields: Any) -> Key:
        def change() -> tuple[Key, Key]:
            key = msgspec.structs.replace(self.get(name), **fields)
            return key, key

        return self._change(change)

    def _change(self, change: Callable[[], tuple[Key, T]]) -> T:
        """Run one change at a time: the new set of keys is made, saved, and only then used."""

        def step() -> T:
            with self._changing:
                key, result = change()
                keys = {**self._keys, key.name: key}
                self._document.save({"keys": [to_disk(each) for each in keys.values()]})
                self._use(keys)
                return result

        # In one piece even if the request is dropped meanwhile: what is saved must also hold.
        return unbroken(step)

    def _use(self, keys: dict[str, Key]) -> None:
        self._by_hash = {h.sha256: (key, h) for key in keys.values() for h in key.hashes}
        self._keys = keys


def hash_of(raw: str) -> str:
    """SHA-256 of a raw secret in hex. Secrets are 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(raw.encode()).hexdigest()


def _holds(hash_: KeyHash, now: float) -> bool:
    return hash_.expires_at is None or now < hash_.expires_at


def _usable(key: Key, now: float) -> Key:
    status = key.status(now)
    if status == "disabled":
        raise BridgeError("key_disabled", "This key is disabled.")
    if status == "expired":
        raise BridgeError("key_expired", "This key has expired.")
    return key
