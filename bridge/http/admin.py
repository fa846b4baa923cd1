"""`/admin/…`: keys, logs, usage, live runs and the audit, for the admin and for the commands."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Blueprint, Response, g, jsonify, request

from bridge.clock import iso, parse_iso
from bridge.engine.run import describe
from bridge.errors import BridgeError
from bridge.http.context import engine_of, require_admin, service_of
from bridge.ledger.keys import Key
from bridge.ledger.limits import Limits, effective
from bridge.ledger.pricing import cost as cost_of
from bridge.ledger.requestlog import Filter
from bridge.settings import LIMIT_DEFAULTS

blueprint = Blueprint("admin", __name__, url_prefix="/admin")

_FIELDS = ("name", "expiresAt", "models", "providers", "note")
_NOTE = "Copy the key now; it is stored as a hash and cannot be shown again."
#: Rows of one page, by default and at most.
PAGE, LARGEST_PAGE = 50, 1000


@blueprint.before_request
def _only_admin() -> None:
    g.actor = require_admin()


# --- keys --------------------------------------------------------------------------------------


@blueprint.get("/keys")
def list_keys() -> Response:
    """All keys with their usage; revoked ones with `?revoked=1`."""
    keys = service_of().keys.list(revoked=request.args.get("revoked") == "1")
    return jsonify({"keys": [key_view(key) for key in keys]})


@blueprint.post("/keys")
def create_key() -> Response:
    """Make a key; the answer is the only one that shows it."""
    body = _body((*_FIELDS, *LIMIT_DEFAULTS))
    name = body.get("name")
    if not isinstance(name, str):
        raise BridgeError("invalid_request", "name is missing or not a text.")
    key, raw = service_of().keys.create(name, _limits(body), **_details(body))
    _audit("key_created", key.name, after=_audited(key))
    response = jsonify({"message": f"Key {key.name} created.", "key": raw, "note": _NOTE, **_named(key)})
    response.status_code = 201
    response.headers["Location"] = f"/admin/keys/{key.name}"
    return response


@blueprint.get("/keys/<name>")
def show_key(name: str) -> Response:
    """One key."""
    return jsonify(key_view(service_of().keys.get(name)))


@blueprint.patch("/keys/<name>")
def change_key(name: str) -> Response:
    """Change limits or fields; what is not named stays. Acts on the next request."""
    body = _body((*_FIELDS[1:], *LIMIT_DEFAULTS))
    before, after = service_of().keys.update(name, limits=_limits(body), **_details(body))
    _audit("key_changed", name, before=_audited(before), after=_audited(after))
    return jsonify({"message": f"Key {name} changed.", **_named(after)})


@blueprint.delete("/keys/<name>")
def revoke_key(name: str) -> Response:
    """End a key for good, and what it has running; its history stays."""
    before = service_of().keys.get(name)
    service_of().keys.revoke(name)
    _stop_runs(name, "The key was revoked.")
    _audit("key_revoked", name, before=_audited(before))
    return jsonify({"message": f"Key {name} revoked."})


@blueprint.post("/keys/<name>/reset-usage")
def reset_usage(name: str) -> Response:
    """Count from zero again in the running day and month; the history stays."""
    service_of().keys.get(name)
    before = service_of().ledger.usage(name)
    service_of().ledger.reset(name)
    _audit("usage_reset", name, before=before)
    return jsonify({"message": f"Usage of {name} reset."})


@blueprint.post("/keys/<name>/rotate")
def rotate_key(name: str) -> Response:
    """A new secret; the old one works for `graceSeconds` more (0 by default)."""
    grace = _body(("graceSeconds",)).get("graceSeconds", 0)
    if isinstance(grace, bool) or not isinstance(grace, int | float):
        raise BridgeError("invalid_request", "graceSeconds is not a number.")
    key, raw = service_of().keys.rotate(name, grace)
    _audit("key_rotated", name, after={"graceSeconds": grace})
    return jsonify({"message": f"Key {name} rotated.", "key": raw, "note": _NOTE, **_named(key)})


@blueprint.post("/keys/<name>/disable")
def disable_key(name: str) -> Response:
    """Refuse the key until it is enabled again."""
    service_of().keys.disable(name)
    _audit("key_disabled", name)
    return jsonify({"message": f"Key {name} disabled."})


@blueprint.post("/keys/<name>/enable")
def enable_key(name: str) -> Response:
    """Take a disabled key again; one that was paused as a suspected loop goes on, too."""
    service_of().keys.enable(name)
    if service_of().engine is not None:
        engine_of().resume(name)
    _audit("key_enabled", name)
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


# --- runs, logs, usage, audit ---------------------------------------------------------------------


@blueprint.get("/runs")
def list_runs() -> Response:
    """What is queued or runs now, oldest first."""
    service = service_of()
    runs = sorted(engine_of().runs.values(), key=lambda run: run.id)
    rows = []
    for run in runs:
        cost = cost_of(service.prices.price_of(run.request.provider, run.request.model), run.usage_so_far)
        rows.append({**describe(run), "startedAt": iso(run.started_at), "costUsdSoFar": cost / 1e6})
    return jsonify({"runs": rows})


@blueprint.delete("/runs/<run_id>")
def stop_run(run_id: str) -> Response:
    """Stop a run; it is charged what it has used."""
    run = engine_of().runs.get(run_id)
    if run is None:
        raise BridgeError("not_found", "No such run is queued or running.")
    run.cancel(BridgeError("cancelled", "The admin stopped this request."))
    _audit("run_stopped", run_id, before={"keyName": run.key_name})
    return jsonify({"message": f"Run {run_id} is being stopped."})


@blueprint.get("/logs")
def logs() -> Response:
    """The request log, newest first; `next` goes into `before` for the page after."""
    rows, following = service_of().log.page(**_log_filters(), before=request.args.get("before"), limit=_limit())
    return jsonify({"logs": rows, "next": following})


@blueprint.get("/logs/<run_id>")
def log_entry(run_id: str) -> Response:
    """One line of the request log."""
    found = service_of().log.find(run_id)
    if found is None:
        raise BridgeError("not_found", "The log has no such request.")
    return jsonify(found)


@blueprint.get("/logs/export")
def export_logs() -> Response:
    """The whole log, or what the filters leave of it, oldest first, as CSV or JSON lines."""
    kind = request.args.get("format", "jsonl")
    if kind not in ("csv", "jsonl"):
        raise BridgeError("invalid_request", "format must be csv or jsonl.")
    rows = service_of().log.iterate(Filter(**_log_filters()))
    _audit("logs_exported", kind)
    lines = _csv(rows) if kind == "csv" else (msgspec.json.encode(row) + b"\n" for row in rows)
    response = Response(lines, mimetype="text/csv" if kind == "csv" else "application/x-ndjson")
    response.headers["Content-Disposition"] = f'attachment; filename="cli-bridge-log.{kind}"'
    return response


@blueprint.get("/usage")
def usage() -> Response:
    """Requests, tokens and cost per day and key."""
    return jsonify({"usage": service_of().ledger.history(_number("days", 30, 400))})


@blueprint.get("/audit")
def audit() -> Response:
    """Who changed what, newest first."""
    rows, following = service_of().audit.page(before=request.args.get("before"), limit=_limit())
    return jsonify({"audit": rows, "next": following})


@blueprint.get("/overview")
def overview() -> Response:
    """Totals, providers, queue and warnings at one glance."""
    service, engine = service_of(), engine_of()
    return jsonify(
        {
            "totals": service.ledger.totals(),
            "providers": [msgspec.to_builtins(status) for status in engine.statuses()],
            "slots": engine.admission.slots,
            "running": engine.admission.running,
            "queued": engine.admission.queued,
            "draining": engine.draining,
            "keys": len(service.keys.list()),
            "timezone": str(service.settings.zone),
            "resetsAt": service.ledger.resets_at(),
            "alerts": service.alerts.recent() if service.alerts is not None else [],
            "backup": service.backups.notes(),
            "problems": [p for p in (service.prices.problem, service.models.problem) if p],
        }
    )


# --- reading requests --------------------------------------------------------------------------------


def _body(known: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object of the request; an empty body is an empty object. Raises BridgeError."""
    raw = request.get_data(cache=False)
    if not raw:
        return {}
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BridgeError("invalid_request", "The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise BridgeError("invalid_request", "The body must be a JSON object.")
    for name in body:
        if name not in known:
            raise BridgeError("invalid_request", f"Unknown field {name[:100]!r}.")
    return body


def _limits(body: dict[str, Any]) -> Limits:
    return Limits.parse({name: value for name, value in body.items() if name in LIMIT_DEFAULTS})


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


def _log_filters() -> dict[str, Any]:
    filters: dict[str, Any] = {
        name: request.args.get(name) or None for name in ("key", "provider", "text", "since", "until")
    }
    status = request.args.get("status")
    filters["status"] = status or None
    for name in ("since", "until"):
        if filters[name] is not None:
            try:
                filters[name] = parse_iso(filters[name])
            except (ValueError, OverflowError):
                raise BridgeError(
                    "invalid_request", f"{name} must be a time with a zone, such as 2026-12-31T18:00:00Z."
                ) from None
    return filters


def _limit() -> int:
    return _number("limit", PAGE, LARGEST_PAGE)


def _number(name: str, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise BridgeError("invalid_request", f"{name} must be a whole number from 1 to {most}.")
    return int(text)


def _csv(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Rows as CSV. Cells that a spreadsheet would run as a formula begin with an apostrophe."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(buffer, list(row), extrasaction="ignore")
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


# --- what a change leaves behind ------------------------------------------------------------------------


def _audit(action: str, subject: str, *, before: Any = None, after: Any = None) -> None:
    service_of().audit.write(action, subject, actor=g.actor, address=g.address, before=before, after=after)


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


def _stop_runs(key_name: str, why: str) -> None:
    engine = service_of().engine
    for run in list(engine.runs.values()) if engine is not None else []:
        if run.key_name == key_name:
            run.cancel(BridgeError("cancelled", why))
