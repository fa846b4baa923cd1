"""What a key holder, and anybody, can ask about the service itself."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from bridge.clock import iso
from bridge.http.choices import allowed, usual
from bridge.http.context import engine_of, is_admin, require_key, service_of
from bridge.keys.keys import Key
from bridge.limits import effective
from bridge.sandbox import host

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
    remaining: dict[str, dict[str, float]] = {"today": {}, "thisMonth": {}}
    for (what, window), left in service.ledger.remaining(key.name, key.limits).items():
        place = remaining["today" if window == "day" else "thisMonth"]
        place["costUsd" if what == "cost" else what] = left / 1e6 if what == "cost" else left
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
