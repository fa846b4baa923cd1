"""What a key holder, and anybody, can ask about the service itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from flask import Blueprint, Response, jsonify

from bridge.clock import iso
from bridge.errors import BridgeError
from bridge.http.context import engine_of, is_admin, require_key, service_of
from bridge.keys.keys import Key, may_use
from bridge.limits import WINDOWS, effective
from bridge.registry import PROVIDERS
from bridge.sandbox import host
from bridge.types import ModelChoice

blueprint = Blueprint("me", __name__)


@blueprint.get("/health")
def health() -> Response:
    """The process answers. Says nothing about the CLIs; see /ready."""
    return jsonify({"status": "ok"})


@blueprint.get("/ready")
def ready() -> Response:
    """200 where at least one provider can work and the store can write, else 503. Details for the admin."""
    service, engine = service_of(), engine_of()
    statuses = engine.statuses()
    parts = {
        "store": "ok" if service.ledger.open_for_business else "failed",
        "queue": "draining" if engine.draining else "ok",
        **{status.name: "ok" if status.available else "unavailable" for status in statuses},
    }
    well = parts["store"] == "ok" and not engine.draining and any(status.available for status in statuses)
    body: dict[str, Any] = {"status": "ok" if well else "unavailable", **parts}
    if is_admin():
        body["details"] = {s.name: {"version": s.version, "problem": s.problem, "hint": s.hint} for s in statuses}
    response = jsonify(body)
    response.status_code = 200 if well else 503
    return response


@blueprint.get("/capacity")
def capacity() -> Response:
    """Whether work is welcome now."""
    return jsonify(capacity_view())


def capacity_view() -> dict[str, Any]:
    """The verdict, and what it rests on."""
    engine = engine_of()
    admission, statuses = engine.admission, engine.statuses()
    if engine.draining or not any(status.available for status in statuses):
        verdict = "red"
    elif not admission.free:
        verdict = "red" if admission.queued >= admission.queue_limit else "yellow"
    else:
        # One that is out for a while, and not one that was never set up.
        out = any(not status.available and status.retry_after is not None for status in statuses)
        verdict = "green" if host.has_room() and not out else "yellow"
    return {
        "verdict": verdict,
        "slots_free": admission.free,
        "queued": admission.queued,
        "retry_after_seconds": 0 if verdict == "green" else round(admission.retry_after_s()),
    }


@blueprint.get("/me")
def me() -> Response:
    """The key's own limits, usage and models."""
    return jsonify(own_view(require_key()))


@blueprint.get("/me/requests")
def my_requests() -> Response:
    """The key's own last requests, newest first; not those of a revoked key that had the same name."""
    key = require_key()
    made = iso(key.created_at)
    rows = [row for row in service_of().statistics.recent(key.name) if row["timestamp"] >= made]
    return jsonify({"requests": rows})


def own_view(key: Key) -> dict[str, Any]:
    """What a key holder may know of their key."""
    service, engine = service_of(), engine_of()
    settings = service.settings
    caps = effective(key.limits, settings.default_limits)
    usage = service.ledger.usage(key.name)
    remaining: dict[str, dict[str, float]] = {window.field: {} for window in WINDOWS}
    for limit, window, left in service.ledger.remaining(key.name, key.limits):
        remaining[window.field][limit.field] = limit.shown(left)
    models = {}
    for status in engine.statuses():
        if key.providers is None or status.name in key.providers:
            models[status.name] = {
                "available": status.available,
                "default": usual(key, status.name),
                "allowed": allowed(key, status.name),
            }
    return {
        "name": key.name,
        "status": key.status(service.clock.now()),
        "expiresAt": None if key.expires_at is None else iso(key.expires_at),
        "limits": caps.to_wire(),
        "usage": usage,
        "remaining": remaining,
        "resetsAt": service.ledger.resets_at(),
        "timezone": str(settings.zone),
        "models": models,
    }


# --- the models that a key may name -----------------------------------------------------------------------


def usable(key: Key, providers: Collection[str]) -> list[ModelChoice]:
    """What a key may name of these CLIs, as far as it can be listed: aliases, then the models of each CLI."""
    models = service_of().models
    listed = list(models.aliases.values())
    for provider in providers:
        names = models.names(provider)
        # Those that only the key names count, too, where any well-formed name is allowed.
        own = [] if _server_list(provider) else [name for name in key.models or () if name not in names]
        listed += [ModelChoice(provider, name) for name in names]
        listed += [choice for choice in map(_resolved, own) if choice is not None and choice.provider == provider]
    found: dict[str, ModelChoice] = {}
    for choice in listed:
        if choice.provider in providers and _may_use(key, choice):
            found.setdefault(choice.alias or choice.model, choice)
    return list(found.values())


def allowed(key: Key, provider: str) -> list[str] | Literal["any"]:
    """The names that a key may send to a CLI, in the key's own order; aliases last."""
    if key.models is None and not _server_list(provider):
        return "any"
    choices = sorted(usable(key, (provider,)), key=lambda choice: choice.alias is not None)
    names = [choice.alias or choice.model for choice in choices]
    if not _server_list(provider):
        # The name says nothing of its CLI: the endpoint that it is sent to does.
        names += [name for name in key.models or () if _resolved(name) is None]
    places = {name: place for place, name in enumerate(key.models or ())}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def usual(key: Key, provider: str) -> str | None:
    """The model to name where nothing speaks for another: the server's default, or the first that the key may use."""
    default = service_of().settings.providers[provider].default_model
    choice = service_of().models.aliases.get(default, ModelChoice(provider, default))
    if choice.provider == provider and _may_use(key, choice):
        return default
    names = allowed(key, provider)
    return names[0] if names and names != "any" else None


def example(key: Key) -> dict[str, str] | None:
    """A provider and a model of it that the key may use, or None where it may use nothing."""
    for provider in PROVIDERS:
        if key.providers is None or provider in key.providers:
            model = usual(key, provider)
            if model is not None:
                return {"provider": provider, "model": model}
    return None


def _may_use(key: Key, choice: ModelChoice) -> bool:
    server_list = _server_list(choice.provider)
    return (not server_list or choice.model in server_list) and may_use(key, choice.model, choice.alias)


def _server_list(provider: str) -> tuple[str, ...]:
    """The server's allow-list of a CLI; empty for any well-formed name. Known without an engine, too."""
    return service_of().settings.providers[provider].models


def _resolved(name: str) -> ModelChoice | None:
    try:
        return service_of().models.resolve(name)
    except BridgeError:
        return None
