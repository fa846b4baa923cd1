"""One key: what is known of it, what it may say, and how keys.json holds it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bridge.errors import BridgeError
from bridge.limits import Limits
from bridge.types import MODEL_PATTERN

NAME_PATTERN = r"[A-Za-z0-9_-]{1,50}"
PROVIDERS = ("claude", "codex")


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
    note: str = ""
    disabled: bool = False
    revoked_at: float | None = None
    #: the end of the secret, to recognise it by; empty where it was never seen
    last4: str = ""

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


def _names(field: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) > 100 or not all(isinstance(name, str) for name in value):
        raise invalid(field, "must be a list of at most 100 names")
    return tuple(value)


def _note(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise invalid("note", "must be a text of at most 500 characters")
    return value


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "expires_at": _expiry,
    "models": _models,
    "providers": _providers,
    "note": _note,
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
    note: str = ""
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
    except (msgspec.ValidationError, BridgeError) as error:
        raise ValueError(str(error)) from None
    for names, what in (
        ([key.name for key in keys], "name"),
        ([each.sha256 for key in keys for each in key.hashes], "hash"),
    ):
        if len(set(names)) != len(names):
            raise ValueError(f"two keys have the same {what}")
    return keys
