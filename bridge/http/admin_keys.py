"""`/admin/keys…`: the keys, for the admin and for the commands."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import request

from bridge.clock import iso
from bridge.errors import BridgeError
from bridge.http.context import audit, json_body, service_of
from bridge.http.describe import Query, Routes
from bridge.http.me import example
from bridge.http.views import (
    KEY_FIELDS,
    Done,
    KeyChange,
    KeyOrder,
    Keys,
    KeyUsage,
    KeyView,
    LimitsView,
    NamedKey,
    NamedModel,
    NamedModels,
    NewKey,
    OneKey,
    Resets,
    Rotation,
    TotalsView,
)
from bridge.keys.keys import Key, invalid
from bridge.limits import DEFAULTS, Limits, WrongLimit, effective
from bridge.registry import PROVIDERS

routes = Routes("Admin", who="admin")

_NOTE = "Copy the key now; it is stored as a hash and cannot be shown again."
_SETTABLE = (*(field.wire_name for field in KEY_FIELDS), *DEFAULTS)


@routes.add("GET", "/admin/keys", query=(Query("revoked", "`1`: revoked ones, too."),))
def list_keys() -> Keys:
    """All keys with their usage; revoked ones with `?revoked=1`."""
    keys = service_of().keys.list(revoked=request.args.get("revoked") == "1")
    return Keys([KeyView(**_facts(key)) for key in keys])


@routes.add("GET", "/admin/models")
def list_models() -> NamedModels:
    """The models that are known by name, for what a key may use: the operator's own names, then those of each CLI."""
    models = service_of().models
    found = {name: choice.provider for name, choice in models.aliases.items()}
    for provider in PROVIDERS:
        for name in models.names(provider):
            found.setdefault(name, provider)
    return NamedModels([NamedModel(*each) for each in found.items()])


@routes.add(
    "POST",
    "/admin/keys",
    status=201,
    body=KeyOrder,
    example={"name": "ada", "maxCostPerDay": 2.5, "providers": ["claude"], "note": "prototype"},
    errors=("conflict",),
)
def create_key() -> tuple[NewKey, dict[str, str]]:
    """Make a key; the answer is the only one that shows it."""
    body = json_body(("name", *_SETTABLE))
    name = body.get("name")
    if not isinstance(name, str):
        raise BridgeError("invalid_request", "name is missing or not a text.")
    key, raw = service_of().keys.create(name, _limits(body), **_details(body))
    audit("key_created", key.name, after=_audited(key))
    return _new(key, raw, f"Key {key.name} created."), {"Location": f"/admin/keys/{key.name}"}


@routes.add("GET", "/admin/keys/<name>", errors=("not_found",))
def show_key(name: str) -> OneKey:
    """One key, also a revoked one: its history stays, and this leads to it."""
    key = service_of().keys.get(name, revoked=True)
    return OneKey(**_facts(key), resets_at=Resets(**service_of().ledger.resets_at()))


@routes.add(
    "PATCH",
    "/admin/keys/<name>",
    body=KeyChange,
    body_needed=False,
    example={"maxConcurrent": 2},
    errors=("not_found",),
)
def change_key(name: str) -> NamedKey:
    """Change limits or fields; what is not named stays. Acts on the next request."""
    body = json_body(_SETTABLE)
    before, after = service_of().keys.update(name, limits=_limits(body), **_details(body))
    audit("key_changed", name, before=_audited(before), after=_audited(after))
    return NamedKey(f"Key {name} changed.", name, _caps(after))


@routes.add("DELETE", "/admin/keys/<name>", errors=("not_found",))
def revoke_key(name: str) -> Done:
    """End a key for good, and what it has running; its history stays."""
    before = service_of().keys.get(name)
    service_of().keys.revoke(name)
    if (engine := service_of().engine) is not None:
        engine.look_at_keys()
    audit("key_revoked", name, before=_audited(before))
    return Done(f"Key {name} revoked.")


@routes.add("POST", "/admin/keys/<name>/reset-usage", errors=("not_found",))
def reset_usage(name: str) -> Done:
    """Count from zero again in the running day and month; the history stays."""
    service_of().keys.get(name)
    before = service_of().ledger.usage(name)
    service_of().ledger.reset(name)
    audit("usage_reset", name, before=before)
    return Done(f"Usage of {name} reset.")


@routes.add(
    "POST",
    "/admin/keys/<name>/rotate",
    body=Rotation,
    body_needed=False,
    example={"graceSeconds": 3600},
    errors=("not_found",),
)
def rotate_key(name: str) -> NewKey:
    """A new secret; the old one works for `graceSeconds` more (0 by default)."""
    grace = json_body(("graceSeconds",)).get("graceSeconds", 0)
    if isinstance(grace, bool) or not isinstance(grace, int | float):
        raise BridgeError("invalid_request", "graceSeconds is not a number.")
    key, raw = service_of().keys.rotate(name, grace)
    audit("key_rotated", name, after={"graceSeconds": grace})
    return _new(key, raw, f"Key {name} rotated.")


@routes.add("POST", "/admin/keys/<name>/disable", errors=("not_found",))
def disable_key(name: str) -> Done:
    """Refuse the key until it is enabled again."""
    service_of().keys.disable(name)
    audit("key_disabled", name)
    return Done(f"Key {name} disabled.")


@routes.add("POST", "/admin/keys/<name>/enable", errors=("not_found", "draining"))
def enable_key(name: str) -> Done:
    """Take a disabled key again; one that was paused as a suspected loop goes on, too."""
    service = service_of()
    service.keys.enable(name)
    if service.engine is not None:
        service.engine.resume(name)
    audit("key_enabled", name)
    return Done(f"Key {name} enabled.")


# --- a key in answers and in the audit -------------------------------------------------------------------


def _facts(key: Key) -> dict[str, Any]:
    """The fields of a KeyView."""
    service = service_of()
    usage = service.ledger.usage(key.name)
    grace = [old.expires_at for old in key.hashes[1:] if old.expires_at is not None]
    return {
        "name": key.name,
        "status": key.status(service.clock.now()),
        "created_at": iso(key.created_at),
        "last_used_at": usage.pop("lastUsedAt"),
        "ending": key.last4,
        "limits": _caps(key),
        "own_limits": key.limits.to_wire(),
        "usage": msgspec.convert(usage, KeyUsage),
        "forecast": msgspec.convert(service.ledger.forecast(key.name), TotalsView | None),
        "rotating_until": iso(grace[0]) if grace and grace[0] > service.clock.now() else None,
        **{field.name: field.show(getattr(key, field.name)) for field in KEY_FIELDS},
    }


def _audited(key: Key) -> dict[str, Any]:
    """A key in the audit: all that can be changed, and no hash."""
    shown = {field.wire_name: field.show(getattr(key, field.name)) for field in KEY_FIELDS}
    return {"limits": key.limits.to_wire(), **shown}


def _caps(key: Key) -> Any:
    return LimitsView(**effective(key.limits, service_of().settings.default_limits).to_wire())


def _new(key: Key, raw: str, message: str) -> NewKey:
    """A new secret, and what the first request with it can name."""
    return NewKey(message, key.name, _caps(key), key=raw, note=_NOTE, example=example(key))


# --- reading requests --------------------------------------------------------------------------------


def _limits(body: dict[str, Any]) -> Limits:
    try:
        return Limits.parse({name: value for name, value in body.items() if name in DEFAULTS})
    except WrongLimit as error:
        raise BridgeError("invalid_request", str(error), field=error.name) from None


def _details(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a key that are no limits, as `Key` has them."""
    now, names = service_of().clock.now(), body.get("credentials")
    if isinstance(names, list):
        known = {each.name for each in service_of().credentials.list()}
        unknown = next((each for each in names if isinstance(each, str) and each not in known), None)
        if unknown is not None:
            raise invalid("credentials", f"names {unknown[:50]!r}, and there is no such credential")
    return {field.name: field.read(body[field.wire_name], now) for field in KEY_FIELDS if field.wire_name in body}
