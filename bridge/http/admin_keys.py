"""`/admin/keys…`: the keys, for the admin and for the commands."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request

from bridge.clock import iso, parse_iso
from bridge.errors import BridgeError, Problem
from bridge.http.context import admin_blueprint, audit, engine_of, json_body, service_of
from bridge.http.me import example
from bridge.keys.keys import Key
from bridge.limits import DEFAULTS, Limits, WrongLimit, effective

blueprint = admin_blueprint("admin", __name__)

_FIELDS = ("name", "expiresAt", "models", "providers", "note")
_NOTE = "Copy the key now; it is stored as a hash and cannot be shown again."


@blueprint.get("/keys")
def list_keys() -> Response:
    """All keys with their usage; revoked ones with `?revoked=1`."""
    keys = service_of().keys.list(revoked=request.args.get("revoked") == "1")
    return jsonify({"keys": [key_view(key) for key in keys]})


@blueprint.post("/keys")
def create_key() -> Response:
    """Make a key; the answer is the only one that shows it."""
    body = json_body((*_FIELDS, *DEFAULTS))
    name = body.get("name")
    if not isinstance(name, str):
        raise BridgeError("invalid_request", "name is missing or not a text.")
    key, raw = service_of().keys.create(name, _limits(body), **_details(body))
    audit("key_created", key.name, after=_audited(key))
    response = jsonify({"message": f"Key {key.name} created.", **_secret(key, raw)})
    response.status_code = 201
    response.headers["Location"] = f"/admin/keys/{key.name}"
    return response


@blueprint.get("/keys/<name>")
def show_key(name: str) -> Response:
    """One key, also a revoked one: its history stays, and this leads to it."""
    key = service_of().keys.get(name, revoked=True)
    return jsonify({**key_view(key), "resetsAt": service_of().ledger.resets_at()})


@blueprint.patch("/keys/<name>")
def change_key(name: str) -> Response:
    """Change limits or fields; what is not named stays. Acts on the next request."""
    body = json_body((*_FIELDS[1:], *DEFAULTS))
    before, after = service_of().keys.update(name, limits=_limits(body), **_details(body))
    audit("key_changed", name, before=_audited(before), after=_audited(after))
    return jsonify({"message": f"Key {name} changed.", **_named(after)})


@blueprint.delete("/keys/<name>")
def revoke_key(name: str) -> Response:
    """End a key for good, and what it has running; its history stays."""
    before = service_of().keys.get(name)
    service_of().keys.revoke(name)
    _stop_runs(name, "The key was revoked.")
    audit("key_revoked", name, before=_audited(before))
    return jsonify({"message": f"Key {name} revoked."})


@blueprint.post("/keys/<name>/reset-usage")
def reset_usage(name: str) -> Response:
    """Count from zero again in the running day and month; the history stays."""
    service_of().keys.get(name)
    before = service_of().ledger.usage(name)
    service_of().ledger.reset(name)
    audit("usage_reset", name, before=before)
    return jsonify({"message": f"Usage of {name} reset."})


@blueprint.post("/keys/<name>/rotate")
def rotate_key(name: str) -> Response:
    """A new secret; the old one works for `graceSeconds` more (0 by default)."""
    grace = json_body(("graceSeconds",)).get("graceSeconds", 0)
    if isinstance(grace, bool) or not isinstance(grace, int | float):
        raise BridgeError("invalid_request", "graceSeconds is not a number.")
    key, raw = service_of().keys.rotate(name, grace)
    audit("key_rotated", name, after={"graceSeconds": grace})
    return jsonify({"message": f"Key {name} rotated.", **_secret(key, raw)})


@blueprint.post("/keys/<name>/disable")
def disable_key(name: str) -> Response:
    """Refuse the key until it is enabled again."""
    service_of().keys.disable(name)
    audit("key_disabled", name)
    return jsonify({"message": f"Key {name} disabled."})


@blueprint.post("/keys/<name>/enable")
def enable_key(name: str) -> Response:
    """Take a disabled key again; one that was paused as a suspected loop goes on, too."""
    service_of().keys.enable(name)
    if service_of().engine is not None:
        engine_of().resume(name)
    audit("key_enabled", name)
    return jsonify({"message": f"Key {name} enabled."})


def key_view(key: Key) -> dict[str, Any]:
    """A key as the admin sees it: never its secret."""
    service = service_of()
    usage = service.ledger.usage(key.name)
    last_used = usage.pop("lastUsedAt", None)
    return {
        "name": key.name,
        "status": key.status(service.clock.now()),
        "createdAt": iso(key.created_at),
        "expiresAt": None if key.expires_at is None else iso(key.expires_at),
        "lastUsedAt": last_used,
        "ending": key.last4,
        "limits": effective(key.limits, service.settings.default_limits).to_wire(),
        "ownLimits": key.limits.to_wire(),
        "usage": usage,
        "models": None if key.models is None else list(key.models),
        "providers": None if key.providers is None else list(key.providers),
        "note": key.note,
        "rotatingUntil": _rotating_until(key),
    }


def _rotating_until(key: Key) -> str | None:
    """Until when the secret before the last rotation works, too."""
    ends = [old.expires_at for old in key.hashes[1:] if old.expires_at is not None]
    return iso(ends[0]) if ends and ends[0] > service_of().clock.now() else None


# --- reading requests --------------------------------------------------------------------------------


def _limits(body: dict[str, Any]) -> Limits:
    try:
        return Limits.parse({name: value for name, value in body.items() if name in DEFAULTS})
    except WrongLimit as error:
        raise BridgeError("invalid_request", str(error), field=error.name) from None


def _details(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a key that are no limits, by their names inside."""
    details: dict[str, Any] = {}
    if "expiresAt" in body:
        details["expires_at"] = _expiry(body["expiresAt"])
    for name in ("models", "providers"):
        if name in body:
            if body[name] is not None and not isinstance(body[name], list):
                raise BridgeError("invalid_request", f"{name} must be a list of names, or null for any.")
            details[name] = body[name]
    if "note" in body:
        details["note"] = body["note"]
    return details


def _expiry(value: Any) -> float | None:
    if value is None:
        return None
    try:
        at = parse_iso(value)
    except (TypeError, ValueError, OverflowError):
        raise BridgeError(
            "invalid_request", "expiresAt must be a time with a zone, such as 2026-12-31T18:00:00Z."
        ) from None
    if at <= service_of().clock.now():
        raise BridgeError("invalid_request", "expiresAt must lie in the future.")
    return at


# --- what a change leaves behind ------------------------------------------------------------------------


def _audited(key: Key) -> dict[str, Any]:
    """A key in the audit: all that can be changed, and no hash."""
    return {
        "limits": key.limits.to_wire(),
        "expiresAt": None if key.expires_at is None else iso(key.expires_at),
        "models": key.models,
        "providers": key.providers,
        "note": key.note,
    }


def _named(key: Key) -> dict[str, Any]:
    caps = effective(key.limits, service_of().settings.default_limits)
    return {"name": key.name, "limits": caps.to_wire()}


def _secret(key: Key, raw: str) -> dict[str, Any]:
    """A new secret, and what the first request with it can name."""
    return {"key": raw, "note": _NOTE, "example": example(key), **_named(key)}


def _stop_runs(key_name: str, why: str) -> None:
    engine = service_of().engine
    for run in list(engine.runs.values()) if engine is not None else []:
        if run.key_name == key_name:
            run.cancel(Problem("cancelled", why))
