"""`/admin/runs`, `/admin/usage…` and `/admin/overview`: what goes on now, and what was used."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from flask import Response, jsonify, request

from bridge.clock import iso
from bridge.engine.run import describe
from bridge.errors import BridgeError, Problem
from bridge.http.context import admin_blueprint, audit, engine_of, number, service_of
from bridge.http.me import capacity_view
from bridge.ledger.pricing import cost as cost_of

blueprint = admin_blueprint("admin_runs", __name__)

#: Keys that are named one by one; what all others used is shown as one sum.
MOST_SERIES = 8
#: Keys in the list of those that are closest to a cap.
CLOSEST = 6


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
    run.cancel(Problem("cancelled", "The admin stopped this request."))
    audit("run_stopped", run_id, before={"keyName": run.key_name})
    return jsonify({"message": f"Run {run_id} is being stopped."})


@blueprint.get("/usage")
def usage() -> Response:
    """Requests, tokens and cost per day and key."""
    return jsonify({"usage": service_of().ledger.history(number("days", 30, 400))})


@blueprint.get("/usage/daily")
def daily_usage() -> Response:
    """The same as columns for a chart: the keys that cost most one by one, the rest as one."""
    days, key = number("days", 30, 400), request.args.get("key")
    return jsonify(service_of().ledger.daily(days, MOST_SERIES, key))


@blueprint.get("/overview")
def overview() -> Response:
    """Totals, providers, queue, latency and warnings at one glance."""
    service, engine = service_of(), engine_of()
    return jsonify(
        {
            "totals": service.ledger.totals(),
            "providers": _providers(),
            "slots": engine.admission.slots,
            "running": engine.admission.running,
            "queued": engine.admission.queued,
            "draining": engine.draining,
            "capacity": capacity_view(),
            "keys": len(service.keys.list()),
            "closest": _closest(),
            "activity": service.statistics.view(),
            "timezone": str(service.settings.zone),
            "resetsAt": service.ledger.resets_at(),
            "alerts": service.alerts.recent() if service.alerts is not None else [],
            "backup": service.backups.notes(),
            "problems": [p for p in (service.prices.problem, service.models.problem) if p],
        }
    )


def _providers() -> list[dict[str, Any]]:
    """Each provider, and how many runs it has."""
    runs = Counter((run.request.provider, run.state) for run in engine_of().runs.values())
    return [
        {
            **msgspec.to_builtins(status),
            "busy": runs[status.name, "running"],
            "queued": runs[status.name, "queued"],
        }
        for status in engine_of().statuses()
    ]


def _closest() -> list[dict[str, Any]]:
    """The keys that have used most of one of their caps, the closest first."""
    service = service_of()
    now = service.clock.now()
    found = [
        {"name": key.name, "status": key.status(now), **nearest}
        for key in service.keys.list()
        if (nearest := service.ledger.nearest_cap(key.name, key.limits)) is not None
    ]
    return sorted(found, key=lambda row: -row["share"])[:CLOSEST]
