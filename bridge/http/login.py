"""`/admin/session`: the dashboard's log-in and log-out."""

from __future__ import annotations

import msgspec
from flask import Response, g, jsonify, request

from bridge.clock import iso
from bridge.errors import CODES, BridgeError
from bridge.http.context import (
    access_identity,
    admin_by_link,
    admin_by_secret,
    audit,
    current_session,
    edge,
    presented_secret,
    service_of,
    sessions_of,
)
from bridge.http.describe import Routes
from bridge.http.session import Session
from bridge.http.views import DefaultLimit, Done, ErrorCode, LoggedIn, LogInState, SessionView
from bridge.keys import link
from bridge.limits import LIMITS

routes = Routes("Admin", who="admin")

#: What the audit calls whoever has logged in with the admin key.
ACTOR = "dashboard"


def link_address(base: str, token: str) -> str:
    """The link with that token, for a browser that finds the bridge at `base`. What stands behind the # is sent to no
    server and in no Referer; the page takes it out of the address before anything else."""
    return f"{base.rstrip('/')}/admin/#/link/{token}"


@routes.add("GET", "/admin/session", who="anybody")
def show_session() -> LogInState:
    """Who is logged in with this browser, if anybody; and whether Cloudflare Access can be asked."""
    try:
        session = current_session()
    except BridgeError:
        session = None
    return LogInState(None if session is None else _view(session), edge().access is not None)


@routes.add("POST", "/admin/session", guarded=False, answer=LoggedIn)
def log_in() -> Response:
    """Open a session: for the admin key, the token of a link, or for whom Cloudflare Access vouches."""
    secret = presented_secret()
    identity = None if secret else access_identity()
    by_link = secret.startswith(link.PREFIX)
    if by_link:
        admin_by_link(secret)
    elif identity is None:
        admin_by_secret(secret)
    g.actor = identity or ACTOR
    audit("logged_in", g.actor, after={"by": "link"} if by_link else None)
    response = Response(mimetype="application/json")
    session = sessions_of().open(request, response, g.actor, by_access=identity is not None)
    response.data = msgspec.json.encode(LoggedIn(_view(session)))
    return response


@routes.add("DELETE", "/admin/session", errors=("csrf_failed",), answer=Done)
def log_out() -> Response:
    """End this session."""
    response = jsonify({"message": "Logged out."})
    session: Session | None = g.get("session")
    if session is not None:
        audit("logged_out", g.actor)
        sessions_of().end(session, response)
    return response


@routes.add("DELETE", "/admin/sessions", errors=("csrf_failed",), answer=Done)
def log_out_everywhere() -> Response:
    """End every session, on every device."""
    sessions_of().end_all()
    audit("sessions_ended", g.actor)
    response = jsonify({"message": "All sessions are ended."})
    sessions_of().forget(response)
    return response


def _view(session: Session) -> SessionView:
    settings = service_of().settings
    return SessionView(
        actor=session.actor,
        token=session.token,
        ends_at=iso(session.ends_at),
        by_access=session.by_access,
        timezone=str(settings.zone),
        log_prompts=settings.log_prompts,
        default_models={name: own.default_model for name, own in settings.providers.items()},
        limits=[DefaultLimit(limit.name, limit.text, settings.default_limits.get(limit.name, 0)) for limit in LIMITS],
        codes=[ErrorCode(name, code.status) for name, code in CODES.items()],
    )
