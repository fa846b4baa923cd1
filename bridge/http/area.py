"""The admin's area, /admin/…: what all its routes share."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, g, request

from bridge.errors import BridgeError
from bridge.http.context import require_admin, service_of, sessions_of

#: Rows of one page, by default and at most.
PAGE, LARGEST_PAGE = 50, 1000


def admin_blueprint(name: str, import_name: str) -> Blueprint:
    """A blueprint below /admin that only the admin gets into; `g.actor` is who it is, for the audit."""
    blueprint = Blueprint(name, import_name, url_prefix="/admin")

    @blueprint.before_request
    def _only_admin() -> None:
        g.actor = require_admin()

    @blueprint.after_request
    def _keep_session(response: Response) -> Response:
        sessions_of().keep(request, response)
        return response

    return blueprint


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


def number(name: str, default: int, most: int) -> int:
    """A whole number from the query string. Raises BridgeError."""
    text = request.args.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise BridgeError("invalid_request", f"{name} must be a whole number from 1 to {most}.")
    return int(text)
