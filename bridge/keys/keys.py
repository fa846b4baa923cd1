"""The keys: who may use the bridge, and within which limits. Only hashes of them are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.limits import Limits, WrongLimit
from bridge.registry import PROVIDERS
from bridge.store.document import REPAIR_HINT, Document, Outdated
from bridge.store.files import unbroken
from bridge.types import MODEL_PATTERN

T = TypeVar("T")

#: What every secret begins with, so that scanners and people recognise one.
PREFIX = "cb_"
_LONGEST_RAW = 512


NAME_PATTERN = r"[A-Za-z0-9_-]{1,50}"


class KeyHash(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A secret that opens a key, as the SHA-256 of it in hex, until `expires_at` (UTC seconds)."""

    sha256: str
    expires_at: float | None = None


class Key(msgspec.Struct, frozen=True):
    """One person or program that may use the bridge. Times are UTC seconds."""

    name: str
    #: newest first; a second one only while a rotation's grace lasts
    hashes: tuple[KeyHash, ...]
    limits: Limits
    created_at: float
    expires_at: float | None = None
    #: None: any; an empty tuple: none at all
    models: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    #: names of the credentials that it uses, and of no others; None: any
    credentials: tuple[str, ...] | None = None
    note: str = ""
    #: equal requests after which the loop breaker pauses it; None: as the server's setting says, 0: never
    loop_repeats: int | None = None
    #: whether its requests may search the web
    web_search: bool = False
    disabled: bool = False
    revoked_at: float | None = None
    #: the end of the secret, to recognise it by; empty where it was never seen
    last4: str = ""

    @property
    def owner(self) -> str:
        """Whose runs and jobs are: a name may be used again after its key was revoked, but not this."""
        return f"{self.name} {self.created_at}"

    def status(self, now: float) -> str:
        """`active`, `disabled`, `expired` or `revoked` at `now` (UTC seconds)."""
        if self.revoked_at is not None:
            return "revoked"
        if self.disabled:
            return "disabled"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def may_use(key: Key, model: str, alias: str | None = None) -> bool:
    """Whether a key may use a model, under its own name or under the operator's."""
    return key.models is None or model in key.models or (alias is not None and alias in key.models)


def check_name(name: object) -> str:
    """A name as it may be. Raises BridgeError invalid_request."""
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise invalid("name", "must be 1 to 50 of A-Z, a-z, 0-9, _ and -")
    return name


def check_details(**given: Any) -> dict[str, Any]:
    """The optional fields of a key as they may be. Raises BridgeError invalid_request that names the field."""
    unknown = given.keys() - _CHECKS.keys()
    if unknown:
        raise invalid(min(unknown), "is not a field of a key")
    return {name: _CHECKS[name](value) for name, value in given.items()}


def invalid(field: str, what: str) -> BridgeError:
    """The refusal of a field."""
    return BridgeError("invalid_request", f"{field} {what}.", field=field)


def _expiry(value: Any) -> float | None:
    if value is None:
        return None
    # Up to the year 9999, which is as far as a date can be written.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 253_402_300_800:
        raise invalid("expiresAt", "must be a time such as 2026-12-31T18:00:00Z")
    return float(value)


def _models(value: Any) -> tuple[str, ...] | None:
    names = _names("models", value)
    if names and not all(re.fullmatch(MODEL_PATTERN, name) for name in names):
        raise invalid("models", "must be names such as claude-sonnet-5-5")
    return names


def _providers(value: Any) -> tuple[str, ...] | None:
    names = _names("providers", value)
    if names and not set(names) <= set(PROVIDERS):
        raise invalid("providers", f"must be some of {', '.join(PROVIDERS)}")
    return names


def _credentials(value: Any) -> tuple[str, ...] | None:
    names = _names("credentials", value)
    if names and not all(re.fullmatch(NAME_PATTERN, name) for name in names):
        raise invalid("credentials", "must be names of credentials")
    return names


def _names(field: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) > 100 or not all(isinstance(name, str) for name in value):
        raise invalid(field, "must be a list of at most 100 names, or null for any")
    return tuple(value)


def _note(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise invalid("note", "must be a text of at most 500 characters")
    return value


def _loop_repeats(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100_000:
        raise invalid("loopRepeats", "must be a whole number up to 100000, 0 for never, or null for the setting")
    return value


def _web_search(value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid("webSearch", "must be true or false")
    return value


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "expires_at": _expiry,
    "models": _models,
    "providers": _providers,
    "credentials": _credentials,
    "note": _note,
    "loop_repeats": _loop_repeats,
    "web_search": _web_search,
}


class StoredKey(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A key as keys.json has it: like `Key`, but with limits in their wire form."""

    name: str
    hashes: tuple[KeyHash, ...]
    limits: dict[str, Any]
    created_at: float
    expires_at: float | None = None
    models: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    credentials: tuple[str, ...] | None = None
    note: str = ""
    loop_repeats: int | None = None
    web_search: bool = False
    disabled: bool = False
    revoked_at: float | None = None
    last4: str = ""


def to_disk(key: Key) -> StoredKey:
    """How a key is stored."""
    return StoredKey(**{**msgspec.structs.asdict(key), "limits": key.limits.to_wire()})


def from_disk(rows: Any) -> list[Key]:
    """The keys in stored `rows`. Raises ValueError that says what is wrong with them."""
    try:
        stored = msgspec.convert(rows, list[StoredKey])
        keys = [Key(**{**msgspec.structs.asdict(s), "limits": Limits.parse(s.limits)}) for s in stored]
    except (msgspec.ValidationError, WrongLimit) as error:
        raise ValueError(str(error)) from None
    wrong = next((key.name for key in keys if not re.fullmatch(NAME_PATTERN, key.name)), None)
    if wrong is not None:
        raise ValueError(f"no key can have the name {wrong[:60]!a}")
    for names, what in (
        ([key.name for key in keys], "name"),
        ([each.sha256 for key in keys for each in key.hashes], "hash"),
    ):
        if len(set(names)) != len(names):
            raise ValueError(f"two keys have the same {what}")
    return keys


Keys = list[Key]  # inside the class, `list` is the method


class KeyBook:
    """All keys, in memory and in keys.json.

    Every change is on the disk before it holds: a save that fails (BridgeError storage_failed)
    changes nothing. Finding a key costs the same however many there are.
    """

    def __init__(self, document: Document, clock: Clock) -> None:
        """Read the keys. Raises StoreError where they cannot be read as a whole."""
        #: called when another host has changed keys; must not wait or raise
        self.on_change: list[Callable[[], None]] = []
        self._document = document
        self._clock = clock
        self._changing = BoundedSemaphore(1)
        self._keys: dict[str, Key] = {}
        self._by_hash: dict[str, tuple[Key, KeyHash]] = {}
        self._load()
        document.watchers.append(self._take)

    def _take(self) -> None:
        """Know what another host has changed."""
        self._load()
        for tell in self.on_change:
            tell()

    def _load(self) -> None:
        rows = (self._document.load() or {}).get("keys", [])
        try:
            self._use({key.name: key for key in from_disk(rows)})
        except ValueError as error:
            raise StoreError(f"{self._document.path.name} is damaged: {error}.", REPAIR_HINT) from None

    def find(self, raw: str) -> Key:
        """The key that a raw secret opens.

        Raises BridgeError unauthorized (the same for malformed, unknown, revoked and rotated out),
        key_disabled or key_expired. One hash and one look-up; what is compared are digests, so the
        time it takes says nothing about the secret. Where several hosts share the keys, an unknown one may be new:
        then it raises storage_failed, too.
        """
        if raw and len(raw) <= _LONGEST_RAW and raw.isascii():
            digest = hash_of(raw)
            found = self._by_hash.get(digest)
            if found is None:
                self._document.refresh()
                found = self._by_hash.get(digest)
            if found is not None and _holds(found[1], now := self._clock.now()):
                return _usable(found[0], now)
        raise BridgeError("unauthorized", "This key is not valid.")

    def current(self, key: Key) -> Key:
        """A key as it is by now, for somebody who has had it for a while. Raises like `find`."""
        if not self.is_there(key):
            raise BridgeError("unauthorized", "This key is not valid any more.")
        return _usable(self._keys[key.name], self._clock.now())

    def is_there(self, key: Key) -> bool:
        """Whether a key, which somebody has had for a while, was not revoked since; it may be disabled or expired."""
        now = self._keys.get(key.name)
        return now is not None and now.created_at == key.created_at and now.revoked_at is None

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

    @property
    def count(self) -> int:
        """How many there are, revoked ones aside."""
        return self._count

    def several(self) -> bool:
        """Whether more than one key may come."""
        return self._usable > 1

    def create(self, name: str, limits: Limits, **details: Any) -> tuple[Key, str]:
        """A new key and its secret, which cannot be found out again. `details` are fields that `check_details` knows.

        The name of a revoked key may be used again; its usage goes on under the name. Raises
        BridgeError invalid_request, conflict or storage_failed.
        """
        raw = PREFIX + secrets.token_urlsafe(32)
        key = self._new(name, limits, hash_of(raw), raw[-4:], check_details(**details))
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
        """Change `limits` (those named; the others stay) or fields that `check_details` knows.

        Returns the key before and after. Raises BridgeError not_found, invalid_request or storage_failed.
        """
        limits = changes.pop("limits", Limits())
        details = check_details(**changes)

        def change() -> tuple[Key, tuple[Key, Key]]:
            before = self.get(name)
            after = msgspec.structs.replace(before, limits=before.limits.merge(limits), **details)
            return after, (before, after)

        return self._change(change)

    def rename_credential(self, old: str, new: str) -> None:
        """Let the keys that use a credential know it by its new name. Raises BridgeError storage_failed."""
        for key in self.list():
            if key.credentials is not None and old in key.credentials:
                names = tuple(new if each == old else each for each in key.credentials)
                self._set(key.name, credentials=names)

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
                while True:
                    key, result = change()
                    keys = {**self._keys, key.name: key}
                    try:
                        self._document.save({"keys": [to_disk(each) for each in keys.values()]})
                    except Outdated:
                        continue
                    self._use(keys)
                    return result

        # In one piece even if the request is dropped meanwhile: what is saved must also hold.
        return unbroken(step)

    def _use(self, keys: dict[str, Key]) -> None:
        self._by_hash = {h.sha256: (key, h) for key in keys.values() for h in key.hashes}
        self._keys = keys
        self._count = sum(key.revoked_at is None for key in keys.values())
        self._usable = sum(key.revoked_at is None and not key.disabled for key in keys.values())


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
