"""What the routes get at: the service, who is asking, and what all routes below /admin share."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import msgspec
from flask import current_app, g, request
from prometheus_client import CollectorRegistry

from bridge.engine.engine import Engine
from bridge.errors import BridgeError
from bridge.http.address import AddressLimiter
from bridge.http.body import EXTENSION, Intake
from bridge.http.session import COOKIE, Session, Sessions
from bridge.keys.admin import is_drawn
from bridge.keys.keys import Key
from bridge.service import Service
from bridge.wire.api import Known, Resolve

#: What the audit calls a command on this host.
_COMMAND_LINE = "command line"
_HOW_TO_BE_ADMIN = "Send it as 'Authorization: Bearer ADMIN_KEY', or log in at /admin/."


class Edge(msgspec.Struct, frozen=True):
    """What all routes of one application share; `app.extensions["bridge"]`."""

    service: Service
    sessions: Sessions
    limiter: AddressLimiter
    intake: Intake
    #: who it is that a token of Cloudflare Access vouches for; None where Access is not configured
    access: Callable[[str], str] | None
    #: what GET /metrics shows
    metrics: CollectorRegistry
    #: requests that wait for the end of a job now, by the name of their key
    waiting: Counter[str]
    #: makes what GET /openapi.json shows
    document: Callable[[], dict[str, Any]]


def edge() -> Edge:
    """What the routes of this application share."""
    shared: Edge = current_app.extensions[EXTENSION]
    return shared


def service_of() -> Service:
    """The service behind this application."""
    return edge().service


def engine_of() -> Engine:
    """The engine; where none runs (a command works on the data folder), nothing can be generated."""
    engine = service_of().engine
    if engine is None:
        raise BridgeError("draining", "The bridge is not running.", retry_after=10)
    return engine


def known_to(key: Key, resolve: Resolve) -> Known:
    """What the body of a request of this key is read with."""
    return Known(service_of().settings, resolve, partial(engine_of().recent.get, key.owner))


def presented_secret() -> str:
    """The secret that the request brings: `Authorization: Bearer …` or `x-api-key`. Empty for none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("X-Api-Key", "").strip()


def require_key() -> Key:
    """The key of the request. Raises BridgeError (401, 403), before anything of the body is looked at."""
    secret = presented_secret()
    if not secret:
        raise BridgeError("unauthorized", "This request has no key.")
    key = service_of().keys.find(secret)
    g.key = key
    return key


def is_admin() -> bool:
    """Whether the request brings the admin key, where others may ask as well."""
    secret = presented_secret()
    try:
        if secret:
            service_of().keys.find(secret)
    except BridgeError:
        # No key of a person: only then it is a guess at the admin key.
        try:
            require_admin()
        except BridgeError:
            return False
        return True
    return False


def require_admin() -> str:
    """Let the admin pass, by the key or by a session; who it is, for the audit. Raises BridgeError (401, 403, 429)."""
    secret = presented_secret()
    if secret or COOKIE not in request.cookies:
        return admin_by_secret(secret)
    session = current_session()
    if session is None:
        # No guess at the key: a page that was left open asks on by itself.
        raise BridgeError("unauthorized", "The session has ended.", _HOW_TO_BE_ADMIN)
    sessions_of().check_token(request, session)
    g.session = session
    return session.actor


def require_host() -> str:
    """Let only commands on this host pass, by the token of the lock file. Raises BridgeError."""
    actor = require_admin()
    if actor != _COMMAND_LINE:
        raise BridgeError("not_found", "This is only for the cli-bridge command on the bridge's own host.")
    return actor


def admin_by_secret(secret: str) -> str:
    """Who the admin key lets in, for the audit. Raises BridgeError (401, 429); a wrong key is counted."""
    service = service_of()
    if secret and hmac.compare_digest(secret.encode(), service.local_token.encode()):
        return _COMMAND_LINE
    if not secret:
        # No guess: any web page that the admin looks at can have a browser ask.
        raise BridgeError("unauthorized", "This needs the admin key.", _HOW_TO_BE_ADMIN)
    if service.admin.recognises(secret):
        # Also from an address that has guessed too often: behind a tunnel, all may have the same.
        return "admin"
    with edge().limiter.guess(g.address, drawn=is_drawn(secret)) as was_right:
        if service.admin.verify(secret):
            was_right()
            return "admin"
    raise BridgeError("unauthorized", "This is not the admin key.", _HOW_TO_BE_ADMIN)


def admin_by_link(token: str) -> None:
    """Use up the link that this is the token of. Raises BridgeError (401, 429); a wrong one counts as a wrong key, and
    the right one opens also where too many were wrong: it was drawn by chance."""
    try:
        service_of().link.use(token)
    except BridgeError:
        with edge().limiter.guess(g.address):
            raise


def current_session() -> Session | None:
    """The dashboard's session that the request brings; one that Cloudflare Access has opened counts only
    while it vouches for every request. Raises BridgeError (401, 503)."""
    session = sessions_of().of(request)
    if session is not None and session.by_access and access_identity() != session.actor:
        return None
    return session


def access_identity() -> str | None:
    """Whom Cloudflare Access vouches for; None where it is not configured. Raises BridgeError (401, 503)."""
    identity = edge().access
    return None if identity is None else identity(request.headers.get("Cf-Access-Jwt-Assertion", ""))


def sessions_of() -> Sessions:
    """The dashboard's sessions."""
    return edge().sessions


# --- the admin's area ----------------------------------------------------------------------------------

#: Rows of one page, by default and at most.
PAGE, LARGEST_PAGE = 50, 1000


def audit(action: str, subject: str, *, before: Any = None, after: Any = None) -> None:
    """Write down what the admin of this request did."""
    service_of().audit.write(action, subject, actor=g.actor, address=g.address, before=before, after=after)


def json_body(known: tuple[str, ...]) -> dict[str, Any]:
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


def page_limit() -> int:
    """`?limit=`: rows of one page."""
    return number("limit", PAGE, LARGEST_PAGE)


def days(default: int) -> tuple[str, str]:
    """`?from=` and `?to=`: the first and the last day, up to today and by default the last `default` days. Raises
    BridgeError."""
    today = date.fromisoformat(service_of().ledger.today())
    last = _day("to", today)
    # Before the first day that there is, there is none.
    first = _day("from", date.fromordinal(max(1, last.toordinal() - default + 1)))
    if first > last:
        raise BridgeError("invalid_request", f"from ({first}) lies after to ({last}).", "Swap the two days.")
    return first.isoformat(), last.isoformat()


def _day(name: str, default: date) -> date:
    text = request.args.get(name) or default.isoformat()
    try:
        if len(text) != len("2026-12-31"):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise BridgeError("invalid_request", f"{name} must be a day such as 2026-12-31.") from None


def number(name: str, default: int, most: int) -> int:
    """A whole number from the query string. Raises BridgeError."""
    text = request.args.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise BridgeError("invalid_request", f"{name} must be a whole number from 1 to {most}.")
    return int(text)
