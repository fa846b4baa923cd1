"""`/admin/…` for the commands on this host: backup, import, and the link that logs the admin in.

Only with the token of the lock file, which nobody has who comes through the network.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from flask import Response, g, request

from bridge.clock import iso
from bridge.errors import BridgeError
from bridge.http.context import audit, service_of
from bridge.http.describe import Routes
from bridge.keys.link import LASTS_S
from bridge.records import takeover

routes = Routes("Admin", who="host")


@routes.add("GET", "/admin/snapshot")
def snapshot() -> Response:
    """The ledger at this moment, as usage.json would hold it."""
    return Response(service_of().ledger.snapshot(), mimetype="application/json")


@routes.add("POST", "/admin/backups")
def note_backup() -> dict[str, Any]:
    """Take note of how a backup went: `{"bytes"}`, or `{"error"}`."""
    try:
        body = msgspec.json.decode(request.get_data(cache=False), type=dict[str, int | str])
    except msgspec.MsgspecError:
        body = {}
    backups = service_of().backups
    match body:
        case {"bytes": int(size)}:
            backups.note_good(size)
        case {"error": str(error)}:
            backups.note_failure(error)
        case _:
            raise BridgeError("invalid_request", "This needs bytes or error.")
    return {"message": "Noted.", **backups.notes()}


@routes.add("POST", "/admin/link")
def make_link() -> dict[str, Any]:
    """The token of a link that logs the admin in once, for the running bridge; an older one ends."""
    if service_of().engine is None:
        raise BridgeError(
            "draining", "The bridge is not running, so no link leads to it.", "Start it: cli-bridge serve"
        )
    token = service_of().link.make()
    audit("link_made", "dashboard")
    return {"token": token, "lastsSeconds": LASTS_S}


@routes.add("POST", "/admin/import")
def import_all() -> takeover.Result:
    """Take over keys, usage and log lines of another program; see takeover.py for the shape."""
    service = service_of()
    try:
        body = msgspec.json.decode(request.get_data(cache=False))
    except (msgspec.MsgspecError, RecursionError):
        raise BridgeError("invalid_request", "The body is not valid JSON.") from None
    oldest = service.clock.now() - timedelta(days=service.settings.log_retention_days).total_seconds()
    result = takeover.take_over(
        takeover.read(body),
        keys=service.keys,
        ledger=service.ledger,
        log=service.log,
        oldest_line=iso(max(0.0, oldest)),
        kept=(lambda prompt: None) if service.settings.log_prompts == "off" else (lambda prompt: prompt),
    )
    for name in result.keys_added:
        service.audit.write("key_imported", name, actor=g.actor, address=g.address)
    return result
