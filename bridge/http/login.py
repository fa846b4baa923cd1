"""`/admin/session`: the dashboard's log-in and log-out."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from bridge.clock import iso
from bridge.errors import CODES, BridgeError
from bridge.http.context import (
    access_identity,
    admin_by_secret,
    audit,
    current_session,
    edge,
    presented_secret,
    require_admin,
    service_of,
    sessions_of,
)
from bridge.http.session import Session
from bridge.limits import LIMITS

blueprint = Blueprint("login", __name__, url_prefix="/admin")

#: What the audit calls whoever has logged in with the admin key.
ACTOR = "dashboard"


@blueprint.get("/session")
def show_session() -> Response:
    """Who is logged in with this browser, if anybody; and whether Cloudflare Access can be asked."""
    try:
        session = current_session()
    except BridgeError:
        session = None
    view = None if session is None else session_view(session)
    return jsonify({"session": view, "access": edge().access is not None})


@blueprint.post("/session")
def log_in() -> Response:
    """Open a session: for the admin key, or for whom Cloudflare Access vouches."""
    identity = None if presented_secret() else access_identity()
    if identity is None:
        admin_by_secret(presented_secret())
    g.actor = identity or ACTOR
    audit("logged_in", g.actor)
    response = Response(mimetype="application/json")
    session = sessions_of().open(request, response, g.actor, by_access=identity is not None)
    response.data = jsonify({"session": session_view(session)}).data
    return response


@blueprint.delete("/session")
def log_out() -> Response:
    """End this session."""
    g.actor = require_admin()
    response = jsonify({"message": "Logged out."})
    session: Session | None = g.get("session")
    if session is not None:
        audit("logged_out", g.actor)
        sessions_of().end(session, response)
    return response


@blueprint.delete("/sessions")
def log_out_everywhere() -> Response:
    """End every session, on every device."""
    g.actor = require_admin()
    sessions_of().end_all()
    audit("sessions_ended", g.actor)
    response = jsonify({"message": "All sessions are ended."})
    sessions_of().forget(response)
    return response


def session_view(session: Session) -> dict[str, Any]:
    """What the pages of a session have to know: of it, and of the server's settings."""
    settings = service_of().settings
    return {
        "actor": session.actor,
        "token": session.token,
        "endsAt": iso(session.ends_at),
        "byAccess": session.by_access,
        "timezone": str(settings.zone),
        "logPrompts": settings.log_prompts,
        "defaultModels": {name: own.default_model for name, own in settings.providers.items()},
        "limits": [
            {"name": limit.name, "text": limit.text, "default": settings.default_limits.get(limit.name, 0)}
            for limit in LIMITS
        ],
        "codes": [{"code": name, "status": code.status} for name, code in CODES.items()],
    }
